"""The scripts of Auto-Encoding Variational Bayes and of rate and distortion, in tiny settings."""

import json
import math

import pytest
from running import script

from pyro_vae.plots import LearningCurve, RatePoint, learning_curves, rate_distortion

TINY = ["--epochs", "2", "--no-progress", "--no-compile", "--output-dir"]
DIGITS = ["--dataset", "digits", "--hidden", "16"]


def result(path):
    return json.loads((path / "result.json").read_text())


@pytest.mark.parametrize(
    "options",
    [
        ["--latent-dims", "2", "3", "--num-samples", "5", "--num-train", "400"],
        [
            "--latent-dims",
            "2",
            "--algorithm",
            "wake-sleep",
            "--precision",
            "bf16",
            "--num-train",
            "400",
        ],
        ["--latent-dims", "2", "--optimiser", "adagrad", "--num-train", "200"],
    ],
    ids=["adam", "wake-sleep", "adagrad"],
)
def test_aevb_records_the_bound_and_goes_on(tmp_path, options):
    aevb = script("programs/aevb")
    options = [*DIGITS, "--pixels", "static", "--epoch-samples", "400", *options]
    aevb(*TINY, tmp_path / "run", *options)
    first = result(tmp_path / "run")["curves"]["2"]
    assert all(math.isfinite(value) for point in first for value in point.values())
    assert first[1]["samples"] == 2 * first[0]["samples"]
    aevb(*TINY, tmp_path / "run", *options, "--epochs", "3")
    assert result(tmp_path / "run")["curves"]["2"][:2] == first
    script("programs/aevb_figure")("--output-dir", tmp_path / "figure", "--runs", tmp_path / "run")
    assert (tmp_path / "figure" / "figures" / "bound.png").is_file()


def test_rate_and_distortion(tmp_path):
    options = [*DIGITS, "--latent-dim", "2", "--betas", "0.1", "1000"]
    script("programs/rate_distortion")(*TINY, tmp_path / "run", *options)
    small, large = result(tmp_path / "run")["points"]
    assert small["rate"] > large["rate"]
    assert small["distortion"] < large["distortion"]
    assert (tmp_path / "run" / "figures" / "reconstructions.png").is_file()


def test_sprites(tmp_path):
    options = ["--size", "8", "--places", "2", "--hidden", "8", "--latent-dim", "2"]
    script("programs/sprites")(*TINY, tmp_path / "run", *options, "--seeds", "0", "1")
    runs = result(tmp_path / "run")["runs"]
    assert [(run["beta"], run["seed"]) for run in runs] == [(1, 0), (1, 1), (4, 0), (4, 1)]
    assert all(0 <= run["mig"] <= 1 for run in runs)


def test_figures_need_something_to_show():
    for figure in (learning_curves, rate_distortion):
        with pytest.raises(ValueError, match="got none"):
            figure({})


def test_figures_show_what_they_are_given():
    curve = LearningCurve([1e5, 1e6], [-150, -100], [-151, -104])
    figure = learning_curves({"z = 3": {"a": curve}, "z = 5": {"a": curve, "b": curve}})
    assert [axes.get_title() for axes in figure.axes] == ["z = 3", "z = 5"]
    assert list(figure.axes[1].lines[1].get_ydata()) == [-151, -104]
    points = [RatePoint(10, 4, 130, 5), RatePoint(0.1, 60, 60, 20)]
    plane = rate_distortion(points).axes[0]
    assert list(plane.lines[0].get_xdata()) == [60, 4]
