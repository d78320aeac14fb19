"""The diagnostic figures show the numbers they are given, and leave matplotlib as it was."""

import matplotlib as mpl
import pytest
import torch
from linear_gaussian import LinearGaussian

from pyro_vae.evaluation.calibration import Calibration
from pyro_vae.evaluation.pareto import pareto_k
from pyro_vae.evaluation.report import Evaluation, evaluate
from pyro_vae.experiments import diagnostics
from pyro_vae.plots import diagnostics as plots


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    torch.manual_seed(0)
    truth = LinearGaussian()
    vae = truth.vae(truth.wrong_encoder())
    return evaluate(vae.model, vae.guide, truth.data(20), num_samples=64)


def test_convergence_draws_the_bounds(evaluation):
    curve = plots.convergence(evaluation).axes[0].lines[0]
    assert curve.get_xdata().tolist() == [1, 2, 4, 8, 16, 32, 64]
    assert curve.get_ydata()[-1] == pytest.approx(float(evaluation.log_px.mean()))
    assert curve.get_ydata()[0] == pytest.approx(float(evaluation.elbo.mean()))


def test_pareto_counts_every_datum(evaluation):
    left, right = plots.pareto(evaluation).axes
    for axes in (left, right):
        assert sum(patch.get_height() for patch in axes.patches) == 20


def test_weight_tails_fall_from_one(evaluation):
    figure = plots.weight_tails(torch.randn(50, 2), ["a", "b"])
    for line in figure.axes[0].lines:
        assert line.get_ydata()[0] == pytest.approx(1 / 50)
        assert line.get_ydata()[-1] == 1
        assert line.get_xdata().mean() == pytest.approx(1, rel=1e-4)
    with pytest.raises(
        ValueError, match=r"expected weights \(K, B\) and B labels, got \(50, 2\) and 1"
    ):
        plots.weight_tails(torch.randn(50, 2), ["a"])


def test_weight_tails_are_labelled_with_their_own_k(evaluation, monkeypatch):
    truth = LinearGaussian()
    vae = truth.vae(truth.wrong_encoder())
    subject = diagnostics.Subject("", "", vae.model, vae.guide, (truth.data(20),), {}, 0)
    monkeypatch.setattr(diagnostics.plots, "weight_tails", lambda *shown: shown)
    log_weight, labels = diagnostics._weight_tails(subject, evaluation)
    assert labels == [
        f"{name}: k = {float(k):.2f}"
        for name, k in zip(("least", "median", "largest"), pareto_k(log_weight), strict=True)
    ]


def test_ranks_draws_every_count():
    calibration = Calibration(
        torch.randint(0, 10, (200, 5), generator=torch.Generator().manual_seed(0)), 9
    )
    panels = plots.ranks(calibration, 5, limit=3).axes
    heights = torch.tensor(
        [[patch.get_height() for patch in axes.containers[0]] for axes in panels[:3]]
    )
    torch.testing.assert_close(heights, calibration.histogram(5).T[:3].to(heights.dtype))


def test_extremes_are_in_order():
    x = torch.linspace(0, 1, 12).reshape(12, 1).expand(12, 4)
    picture = (
        plots.extremes(x, log_px=torch.arange(12.0), shape=(1, 2, 2), count=3)
        .axes[0]
        .images[0]
        .get_array()
    )
    shown = [
        [float(picture[1 + 3 * row, 1 + 3 * column, 0]) for column in range(3)] for row in range(2)
    ]
    assert shown == [pytest.approx([1, 10 / 11, 9 / 11]), pytest.approx([2 / 11, 1 / 11, 0])]


def test_no_global_state(evaluation):
    before = dict(mpl.rcParams)
    plots.convergence(evaluation)
    plots.pareto(evaluation)
    assert dict(mpl.rcParams) == before
