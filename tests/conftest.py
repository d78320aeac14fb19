"""What holds for every test."""

import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the tests' tensors are small, and the tests run side by side

import pyro
import pytest

KNOWN_FAULTS = Path(__file__).parent / "known_faults.txt"


def pytest_collection_modifyitems(items):
    """Tests of faults that are not cured yet fail; one that passes has to leave the list."""
    known = KNOWN_FAULTS.read_text().splitlines() if KNOWN_FAULTS.exists() else []
    for item in items:
        if f"{item.path.name}::{item.name}" in known:
            item.add_marker(pytest.mark.xfail(strict=True, reason="known fault"))


@pytest.fixture(autouse=True)
def _store_stays_empty():
    """No test leaves anything in Pyro's parameter store; the one that does is named, and those after it do not pay."""
    yield
    left = list(pyro.get_param_store().keys())
    pyro.clear_param_store()
    assert not left
