"""What holds for every test."""

import os

os.environ.setdefault(
    "OMP_NUM_THREADS", "1"
)  # the tests' tensors are small, and the tests run side by side

import pyro
import pytest


@pytest.fixture(autouse=True)
def _store_stays_empty():
    """No test leaves anything in Pyro's parameter store; the one that does is named, and those after it do not pay."""
    yield
    left = list(pyro.get_param_store().keys())
    pyro.clear_param_store()
    assert not left
