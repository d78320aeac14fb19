"""Figures: how far an estimate of log p(x) can be trusted.

Every function returns a ``matplotlib.figure.Figure`` and changes no global state of matplotlib.
"""

import math

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from ..evaluation.calibration import Calibration
from ..evaluation.report import Evaluation
from .panels import Shape
from .panels import images as draw_images
from .ticks import plain_ticks


def convergence(evaluation: Evaluation) -> Figure:
    """Draw the mean importance-weighted bound against the number of samples k.

    The right panel shows, on log axes, how far the bound is below the jackknife estimate from all K
    samples. The band is two standard errors of the mean difference from the bound with k = K on the
    same data.
    """
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    sizes = list(evaluation.bounds)
    means = np.array([float(bound.mean()) for bound in evaluation.bounds.values()])
    spreads = [_spread(bound - evaluation.log_px) for bound in evaluation.bounds.values()]
    errors = np.array(spreads) / math.sqrt(len(evaluation.log_px))
    left.fill_between(sizes, means - 2 * errors, means + 2 * errors, alpha=0.3, linewidth=0)
    left.plot(sizes, means, ".-", label="bound of k samples")
    left.axhline(
        float(evaluation.jackknife_log_px.mean()),
        color="C1",
        linestyle="--",
        label="jackknife, all samples",
    )
    left.set(xscale="log", xlabel="k", ylabel="nats per datum", title="log p(x), at least")
    left.legend(frameon=False, loc="lower right")
    distance = (float(evaluation.jackknife_log_px.mean()) - means).clip(min=1e-6)
    right.plot(sizes, distance, ".-")
    right.set(
        xscale="log",
        yscale="log",
        xlabel="k",
        ylabel="nats per datum",
        title="below the jackknife of all samples",
    )
    for axis in (left.xaxis, right.xaxis, right.yaxis):
        plain_ticks(axis)
    for axes in (left, right):
        axes.grid(alpha=0.3)
    return figure


def _spread(values: Tensor) -> float:
    """The standard deviation; 0 for a single value."""
    return float(values.std()) if len(values) > 1 else 0.0


def pareto(evaluation: Evaluation) -> Figure:
    """Draw histograms of Pareto k and of the effective sample size over the data.

    The line is at :func:`trusted_below`: an estimate from K samples can be trusted where k is
    smaller. Data to the left of the line are :attr:`Evaluation.trustworthy`.
    """
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    trusted = float(evaluation.trustworthy.double().mean())
    k = evaluation.pareto_k[evaluation.pareto_k.isfinite()].numpy()
    left.hist(k, bins=30)
    threshold = trusted_below(evaluation.num_samples)
    label = f"trusted below {threshold:.2g}"
    left.axvline(threshold, color="C3", linestyle="--", label=label)
    left.set(xlabel="Pareto k", ylabel="data", title=f"tail of the weights, {trusted:.0%} trusted")
    left.legend(frameon=False)
    size = evaluation.effective_sample_size.numpy()
    right.hist(size, bins=np.geomspace(0.99 * size.min(), 1.01 * size.max(), 31).tolist())
    right.set(
        xscale="log",
        xlabel="effective sample size",
        ylabel="data",
        title=f"of {evaluation.num_samples} samples",
    )
    plain_ticks(right.xaxis)
    return figure


def trusted_below(num_samples: int) -> float:
    """The Pareto k below which an estimate of K samples is trusted: min(1 - 1 / log10(K), 0.7).

    Source: Vehtari et al., *Pareto Smoothed Importance Sampling*, 2024.

    >>> trusted_below(100), trusted_below(10_000)
    (0.5, 0.7)
    """
    return min(1 - 1 / math.log10(max(num_samples, 2)), 0.7)


def weight_tails(log_weight: Tensor, labels: list[str]) -> Figure:
    """Draw the share of weights larger than each value; one line per datum of log weights (K, B).

    On these axes a Pareto tail of shape k is a straight line of slope -1/k.
    Raises ``ValueError`` unless there are B labels.
    """
    if log_weight.ndim != 2 or log_weight.shape[1] != len(labels):
        raise ValueError(
            f"expected weights (K, B) and B labels, got {tuple(log_weight.shape)} and {len(labels)}"
        )
    figure = Figure(figsize=(5, 3.6), layout="constrained")
    axes = figure.subplots()
    K = len(log_weight)
    relative = (
        (log_weight - log_weight.logsumexp(0) + math.log(K))
        .sort(0, descending=True)
        .values.exp()
        .cpu()
        .numpy()
    )
    for column, label in zip(relative.T, labels, strict=True):
        axes.plot(column, np.arange(1, K + 1) / K, ".", markersize=3, label=label)
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="weight / mean weight",
        ylabel="share of weights above",
        title=f"{K} weights of each datum",
    )
    axes.set_xlim(left=1e-2)
    for axis in (axes.xaxis, axes.yaxis):
        plain_ticks(axis)
    axes.legend(frameon=False, markerscale=3)
    axes.grid(alpha=0.3)
    return figure


def ranks(calibration: Calibration, num_bins: int = 10, *, limit: int = 12) -> Figure:
    """Draw the rank histogram of each of the first ``limit`` latents.

    If the guide is the exact posterior, 99 % of the bars end inside the band.
    """
    counts = calibration.histogram(num_bins).cpu().numpy()
    p_values = calibration.p_values(num_bins).numpy()
    shown = min(limit, counts.shape[1])
    columns = min(shown, 4)
    rows = math.ceil(shown / columns)
    figure = Figure(figsize=(2.4 * columns, 2 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, sharey=True, squeeze=False).flatten()
    for dim, axes in enumerate(panels):
        if dim < shown:
            _rank_panel(axes, counts[:, dim], f"z{dim}: p = {p_values[dim]:.2g}")
        else:
            axes.set_axis_off()
    figure.suptitle(
        f"ranks among {calibration.num_draws} draws: "
        "hill = too wide, valley = too narrow, slope = shifted",
        fontsize=9,
    )
    return figure


def _rank_panel(
    axes: Axes, counts: "np.ndarray[tuple[int], np.dtype[np.int64]]", title: str
) -> None:
    expected = counts.sum() / len(counts)
    spread = 2.58 * math.sqrt(expected * (1 - 1 / len(counts)))
    axes.bar(np.arange(len(counts)), counts, width=0.95)
    axes.axhspan(expected - spread, expected + spread, color="C1", alpha=0.3, linewidth=0)
    axes.set_title(title, fontsize=9)
    axes.set_xticks([])


def extremes(
    x: Tensor, log_px: Tensor, shape: Shape, *, count: int = 10, peak: float = 1.0
) -> Figure:
    """Draw the ``count`` most likely pictures of x (B, D) above the ``count`` least likely."""
    count = min(count, len(x) // 2) or 1
    order = log_px.argsort(descending=True).to(x.device)
    chosen = torch.cat([order[:count], order[-count:]])
    return draw_images(
        x[chosen], shape, columns=count, peak=peak, title="likeliest (above), least likely (below)"
    )
