"""What holds for every test."""

import os

# the tests' tensors are small, and the tests run side by side
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pyro
import pytest


@pytest.fixture(autouse=True)
def _store_stays_empty():
    """A test that leaves something in Pyro's parameter store fails; the tests after it do not."""
    yield
    left = list(pyro.get_param_store().keys())
    pyro.clear_param_store()
    assert not left


@pytest.fixture
def traced_only(monkeypatch):
    """Run the traced graph operation by operation."""
    import torch._inductor

    monkeypatch.setattr(torch._inductor, "compile", lambda graph, inputs: graph)
