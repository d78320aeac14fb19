"""200 random pairs of programs: each check ends in agreement, or in a refusal that is true."""

import logging

import pytest
from random_programs.check import check_many, report
from random_programs.faults import PENDING
from random_programs.spec import FEATURES, consistent, draw

PROGRAMS, SHARE = 200, 10  # in shares, so that several processes divide them
CHECKS = 0.2  # the share of each program's checks; ``python -m tests.random_programs`` makes half


@pytest.fixture(autouse=True)
def _quiet():
    logging.disable(logging.INFO)  # Pyro says how many plates it found
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("start", range(0, PROGRAMS, SHARE))
def test_programs_agree_or_are_refused(start):
    outcomes, _ = check_many(range(start, start + SHARE), CHECKS)
    wrong = [outcome for outcome in outcomes if outcome.status in ("failure", "invalid")]
    counted = [outcome for outcome in wrong if outcome.fault not in PENDING]
    count = f"{len(counted)} of {len(outcomes)} checks failed"
    assert not counted, f"{count}; the first:\n\n{report(counted[0])}"


def test_every_feature_occurs():
    specs = [draw(seed) for seed in range(PROGRAMS)]
    assert all(consistent(spec) == spec for spec in specs)
    features = {feature for spec in specs for feature in spec.features}
    assert len(features) > 2 * len(FEATURES)
    assert {
        "noise",
        "relaxed",
        "delta",
        "auxiliary",
        "data uint8",
        "outside sibling",
        "mask latent",
        "enumerate",
    } <= features


def test_a_seed_gives_one_program():
    assert draw(7) == draw(7)
    assert len({str(draw(seed)) for seed in range(PROGRAMS)}) == PROGRAMS
