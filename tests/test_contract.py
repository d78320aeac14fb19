"""The contract: one test for each cell of the table of pairs by uses."""

import logging
from pathlib import Path

import pytest
from contract.pairs import PAIRS
from contract.refusals import REFUSALS
from contract.table import DOCUMENT, document, expected_cells
from contract.uses import USES, cells, outcome
from running import traced


@pytest.fixture(autouse=True)
def _quiet():
    logging.disable(logging.INFO)  # Pyro says how many plates it found
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize(("pair", "use"), list(cells()))
def test_agrees_or_is_refused(pair, use):
    with traced():  # ``python -m tests.contract`` compiles the graphs
        sentence = outcome(pair, use)
    expected = REFUSALS.get((pair, use), "ok")
    assert sentence.startswith(expected)
    assert "\n" not in sentence


def test_refusals_are_of_cells_that_exist():
    assert set(REFUSALS) <= {(pair, use) for pair in PAIRS for use in USES}


def test_document_is_up_to_date():
    text = Path(__file__).parents[1].joinpath(DOCUMENT).read_text(encoding="utf-8")
    assert text == document(expected_cells()), "run python -m tests.contract --write"
