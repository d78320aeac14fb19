"""The slow diagnostics of ``scripts/evaluate.py``, on a few digits."""

import json

import pytest
from running import TINY, script

train, evaluate = script("train"), script("evaluate")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    train(*TINY, "--epochs", 1, "--output-dir", folder)
    return folder


def test_diagnostics_that_are_asked_for(run, capsys):
    options = (
        "--ais",
        "--ais-steps",
        10,
        "--gaps",
        "--calibration",
        "--few",
        3,
        "--max-images",
        20,
    )
    evaluate(run, "--num-samples", 30, *options)
    result = json.loads((run / "evaluation-test-20-data-30-samples-seed-0.json").read_text())
    ais = result["annealed_importance_sampling"]
    assert (
        ais["num_images"]
        == result["gaps_diagonal"]["num_images"]
        == result["gaps_full_rank"]["num_images"]
        == 3
    )
    assert ais["simulated_lower_bound"] < ais["simulated_upper_bound"] + 1
    figures = {path.stem for path in (run / "figures" / "evaluation-test-20-data-30-samples-seed-0").iterdir()}
    assert figures == {"convergence", "pareto", "weight_tails", "extremes", "ranks"}
    assert f"{result['gaps_diagonal']['amortisation']:.4f}" in capsys.readouterr().out


def test_diagnostics_change_no_estimate(run):
    evaluate(run, "--num-samples", 20, "--max-images", 10)
    plain = json.loads((run / "evaluation-test-10-data-20-samples-seed-0.json").read_text())
    evaluate(run, "--num-samples", 20, "--max-images", 10, "--gaps", "--few", 2, "--overwrite")
    again = json.loads((run / "evaluation-test-10-data-20-samples-seed-0.json").read_text())
    assert {name: again[name] for name in plain} == plain
    assert not (run / "figures" / "evaluation-test-10-data-20-samples-seed-0" / "ranks.png").exists()
