"""The slow diagnostics of ``scripts/evaluate.py``, on a few digits."""

import json
import sys

import pytest
from running import TINY, script

from pyro_vae.experiments.glossary import explain

train, evaluate = script("train"), script("evaluate")
module = sys.modules["scripts_evaluate"]


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
    figures = {
        path.stem
        for path in (run / "figures" / "evaluation-test-20-data-30-samples-seed-0").iterdir()
    }
    assert figures == {"convergence", "pareto", "weight_tails", "extremes", "ranks"}
    assert f"{result['gaps_diagonal']['amortisation']:.4f}" in capsys.readouterr().out


def test_diagnostics_change_no_estimate(run):
    evaluate(run, "--num-samples", 20, "--max-images", 10)
    plain = json.loads((run / "evaluation-test-10-data-20-samples-seed-0.json").read_text())
    evaluate(run, "--num-samples", 20, "--max-images", 10, "--gaps", "--few", 2, "--overwrite")
    again = json.loads((run / "evaluation-test-10-data-20-samples-seed-0.json").read_text())
    assert {name: again[name] for name in plain} == plain
    assert not (
        run / "figures" / "evaluation-test-10-data-20-samples-seed-0" / "ranks.png"
    ).exists()


@pytest.mark.parametrize("num_samples", [1, 2, 24, 25])
def test_few_samples_are_enough_for_the_figures(run, num_samples):
    evaluate(run, "--num-samples", num_samples, "--max-images", 3, "--no-progress")
    name = f"evaluation-test-3-data-{num_samples}-samples-seed-0"
    result = json.loads((run / f"{name}.json").read_text(), parse_constant=pytest.fail)
    assert (result["bias"] is None) == (num_samples == 1)
    figures = {path.stem for path in (run / "figures" / name).iterdir()}
    assert ("convergence" in figures) == (num_samples > 1)
    assert ("pareto" in figures) == (num_samples >= 25)


def test_numbers_are_saved_before_figures_are_drawn(run, monkeypatch):
    monkeypatch.setattr(module, "draw", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        evaluate(run, "--num-samples", 3, "--max-images", 5, "--calibration", "--no-progress")
    result = json.loads((run / "evaluation-test-5-data-3-samples-seed-0.json").read_text())
    assert result["calibration"]["num_simulations"] == 5


def test_calibration_leaves_numbers(run):
    evaluate(run, "--num-samples", 4, "--max-images", 6, "--calibration", "--no-progress")
    result = json.loads((run / "evaluation-test-6-data-4-samples-seed-0.json").read_text())
    found = result["calibration"]
    assert sum(bar[0] for bar in found["histogram"]) == found["num_simulations"] == 6
    assert found["smallest_p_value"] == min(found["p_values"])


def test_another_seed_has_another_file(run):
    results = []
    for seed in (0, 1):
        options = ("--max-images", 7, "--seed", seed, "--no-progress")
        evaluate(run, "--num-samples", 4, *options)
        path = run / f"evaluation-test-7-data-4-samples-seed-{seed}.json"
        results.append(json.loads(path.read_text()))
    assert [result["seed"] for result in results] == [0, 1]
    assert results[0]["log_px"] != results[1]["log_px"]


def names(result):
    """The names of all numbers, also those of the tables inside."""
    for name, value in result.items():
        yield from names(value) if isinstance(value, dict) else (name,)


def test_every_number_is_explained(run, capsys):
    options = ("--ais", "--ais-steps", 3, "--gaps", "--calibration", "--few", 2, "--explain")
    evaluate(run, "--num-samples", 30, "--max-images", 8, *options, "--no-progress")
    result = json.loads((run / "evaluation-test-8-data-30-samples-seed-0.json").read_text())
    assert not [name for name in names(result) if not explain(name)]
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "KL(q(z | x) || p(z))" in shown
    for name in ("log_px", "rate (KL)", "kl_mutual_information", "amortisation"):
        assert name in shown
    metrics = (run / "metrics.csv").read_text().splitlines()[0]
    assert "validation_kl" in explain("rate")
    assert "validation_kl" in metrics
