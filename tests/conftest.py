"""What holds for every test."""

import os

# the tests' tensors are small, and the tests run side by side
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pyro
import pytest
from running import traced

from pyro_vae.programs import kept_choices


@pytest.fixture(scope="session", autouse=True)
def _choices_of_the_tests(tmp_path_factory):
    """Products that are timed while tests run side by side are not the machine's choices."""
    path = tmp_path_factory.getbasetemp().parent / "choices.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kept_choices, "_path", lambda: path)
        yield


@pytest.fixture(autouse=True)
def _store_stays_empty():
    """A test that leaves something in Pyro's parameter store fails; the tests after it do not."""
    yield
    left = list(pyro.get_param_store().keys())
    pyro.clear_param_store()
    assert not left


@pytest.fixture
def traced_only():
    """Run traced graphs operation by operation."""
    with traced():
        yield
