"""Charts hold the numbers they were given, with names on axes, curves and reference lines."""

import math

import matplotlib as mpl
import numpy as np
import pytest
import torch

from pyro_vae import plots
from pyro_vae.evaluation.report import Evaluation
from pyro_vae.plots.diagnostics import trusted_below

NAMES = {"title": "t", "xlabel": "K", "ylabel": "nats"}


def an_evaluation(elbo, log_px, K=100):
    B = len(elbo)
    return Evaluation(
        num_samples=K,
        num_observed=4,
        bounds={1: elbo, K: log_px},
        elbo=elbo,
        distortion=-elbo,
        standard_error=torch.zeros(B),
        bias=torch.zeros(B),
        effective_sample_size=torch.linspace(4.0, 6.0, B),
        pareto_k=torch.linspace(0.0, 1.0, B),
        smoothed_log_px=log_px,
        active_units=1,
        kl=None,
    )


def labels(axis):
    axis.figure.canvas.draw()
    return [text.get_text() for text in axis.get_ticklabels() if text.get_text()]


def test_lines_show_every_point_under_its_name():
    x = [1, 10, 100]
    axes = plots.lines(x, {"a": [1, 2, 3], "b": [4, 5]}, log="x", **NAMES).axes[0]
    assert [line.get_xydata().tolist() for line in axes.lines] == [
        [[1, 1], [10, 2], [100, 3]],
        [[1, 4], [10, 5]],
    ]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["a", "b"]
    assert (axes.get_title(), axes.get_xlabel(), axes.get_ylabel()) == ("t", "K", "nats")
    assert axes.get_xscale() == "log"


@pytest.mark.parametrize("value", [-25.0, 3.0, 0.5])
def test_the_reference_line_lies_inside_the_axes(value):
    axes = plots.lines([1, 2], {"bound": [0.0, 1.0]}, reference=("truth", value), **NAMES).axes[0]
    low, high = axes.get_ylim()
    margin = 0.03 * (high - low)
    assert low + margin < value < high - margin
    assert axes.lines[-1].get_ydata() == [value, value]
    assert "truth" in [text.get_text() for text in axes.get_legend().get_texts()]


def test_histograms_count_what_lies_within_the_limits():
    sample = torch.arange(60.0)
    axes = plots.histograms(
        {"a": sample, "b": sample + 1}, title="t", xlabel="x", reference=("truth", 3.0)
    ).axes[0]
    assert sum(patch.get_height() * patch.get_width() for patch in axes.patches) == pytest.approx(2)
    assert [line.get_xdata()[0] for line in axes.lines] == [29.5, 30.5, 3.0]
    assert len(axes.get_legend().get_texts()) == 3


def test_scatter_shows_every_datum():
    axes = plots.scatter(
        torch.arange(3.0), torch.tensor([2.0, 0.0, 1.0]), threshold=("limit", 0.7), **NAMES
    ).axes[0]
    assert axes.lines[0].get_xydata().tolist() == [[0, 2], [1, 0], [2, 1]]
    assert axes.lines[1].get_xdata() == [0.7, 0.7]


def test_comparison_has_the_error_of_the_difference():
    first = torch.tensor([0.0, 10.0, 20.0])
    better = first + torch.tensor([1.0, 2.0, 3.0])
    evaluations = {
        "a": an_evaluation(first - 1, first),
        "b": an_evaluation(better - 1, better),
    }
    axes = plots.comparison(evaluations).axes[0]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["a", "b"]
    assert [list(c.lines[0].get_xdata()) for c in axes.containers] == [[9, 11], [10, 12]]
    segments = axes.containers[1].lines[2][0].get_segments()
    widths = [float(np.ptp(segment[:, 0])) for segment in segments]
    assert widths == pytest.approx([0, 4 / math.sqrt(3)])  # not that of the data, 10


def test_posteriors_show_the_picture_the_posterior_and_each_guide():
    axis = torch.linspace(-3, 3, 31)
    grid = torch.cartesian_prod(axis, axis)
    log_p = -0.5 * grid.square().sum(1).view(1, 31, 31).expand(2, -1, -1)
    others = {"guide": log_p - 1, "draws": torch.randn(2, 7, 2)}
    figure = plots.posteriors(axis, log_p, others, torch.rand(2, 4), (1, 2, 2))
    panels = figure.axes
    assert len(panels) == 6
    assert [panel.get_title() for panel in panels[1:3]] == ["guide", "draws"]
    # the region of 99 % of a standard Normal has radius 3.03, of 50 % 1.18
    blue = panels[1].collections[0].get_paths()
    radius = np.linalg.norm(np.concatenate([path.vertices for path in blue if len(path)]), axis=1)
    assert radius.max() == pytest.approx(3.0, abs=0.3)
    assert len(panels[2].collections[-1].get_offsets()) == 7


def test_codes_lie_where_they_were_drawn_and_circles_hold_the_prior():
    z, classes = torch.randn(50, 2), torch.arange(50) % 3
    figure = plots.codes({"a": z, "b": z + 1}, classes)
    left = figure.axes[0]
    np.testing.assert_allclose(np.asarray(left.collections[0].get_offsets()), z.numpy())
    radii = [float(np.hypot(*line.get_xydata()[0])) for line in left.lines]
    assert [1 - math.exp(-(radius**2) / 2) for radius in radii] == pytest.approx([0.5, 0.9, 0.99])
    names = [text.get_text() for text in figure.axes[1].get_legend().get_texts()]
    assert len(names) == 3


def test_pareto_draws_the_threshold_that_its_share_refers_to():
    evaluation = an_evaluation(torch.zeros(101), torch.zeros(101), K=100)
    left = plots.pareto(evaluation).axes[0]
    (line,) = left.lines
    below = float((evaluation.pareto_k < line.get_xdata()[0]).double().mean())
    assert below == float(evaluation.trustworthy.double().mean())
    assert f"{below:.0%} trusted" in left.get_title()
    assert left.get_legend().get_texts()[0].get_text() == "trusted below 0.5"


@pytest.mark.parametrize("K", [2, 10, 100, 1000, 5000, 10**6])
def test_the_threshold_is_that_of_the_evaluation(K):
    evaluation = an_evaluation(torch.zeros(1001), torch.zeros(1001), K)
    assert torch.equal(evaluation.pareto_k < trusted_below(K), evaluation.trustworthy)


def test_short_logarithmic_axes_have_plain_numbers():
    evaluation = an_evaluation(torch.zeros(20), torch.zeros(20))
    shown = labels(plots.pareto(evaluation).axes[1].xaxis)
    assert shown
    assert not any("10^" in text or "times" in text for text in shown)
    long = plots.lines([1, 10_000], {"a": [1e-5, 1]}, log="xy", **NAMES).axes[0]
    assert {"1", "100", "10 000"} <= set(labels(long.xaxis))
    assert "1e-05" in labels(long.yaxis)


def test_charts_change_no_global_state():
    before = dict(mpl.rcParams)
    plots.lines([1, 2], {"a": [1, 2]}, **NAMES)
    plots.codes({"a": torch.randn(5, 2)})
    assert dict(mpl.rcParams) == before


GRID = torch.linspace(-1, 1, 3)
ERRORS = {
    "no curve": (lambda: plots.lines([1], {}, **NAMES), r"at most 1 points, got \[\]"),
    "a longer curve": (
        lambda: plots.lines([1], {"a": [1, 2]}, **NAMES),
        r"expected curves of at most 1 points, got \[2\]",
    ),
    "no sample": (
        lambda: plots.histograms({}, title="", xlabel=""),
        "expected at least one sample, got none",
    ),
    "x and y": (
        lambda: plots.scatter(torch.zeros(2), torch.zeros(3), **NAMES),
        r"expected x and y of shape \(N,\), got \(2,\), \(3,\)",
    ),
    "no evaluation": (lambda: plots.comparison({}), r"of the same data, got \[\] data"),
    "evaluations of other data": (
        lambda: plots.comparison(
            {
                "a": an_evaluation(torch.zeros(2), torch.zeros(2)),
                "b": an_evaluation(torch.zeros(3), torch.zeros(3)),
            }
        ),
        r"expected evaluations of the same data, got \[2, 3\] data",
    ),
    "codes of three": (
        lambda: plots.codes({"a": torch.zeros(4, 3)}),
        r"expected codes of shape \(N, 2\), got \(4, 3\) of a",
    ),
    "a posterior of another grid": (
        lambda: plots.posteriors(GRID, torch.zeros(1, 2, 2), {}, torch.zeros(1, 1), (1, 1, 1)),
        r"expected log_posterior of shape \(1, 3, 3\), got \(1, 2, 2\)",
    ),
    "a guide of other data": (
        lambda: plots.posteriors(
            GRID, torch.zeros(1, 3, 3), {"q": torch.zeros(2, 3, 3)}, torch.zeros(1, 1), (1, 1, 1)
        ),
        r"expected q of shape \(1, 3, 3\) or \(1, S, 2\), got \(2, 3, 3\)",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name):
    call, message = ERRORS[name]
    with pytest.raises(ValueError, match=message):
        call()
