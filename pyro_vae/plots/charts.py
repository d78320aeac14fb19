"""Figures: lines, histograms and points, with a title, axis labels and a legend.

Every function returns a ``matplotlib.figure.Figure`` and changes no global state of matplotlib.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from ..evaluation.report import Evaluation
from .ticks import plain_ticks

Reference = tuple[str, float]
"""The name and the value of a reference line."""


def lines(
    x: Sequence[float],
    curves: Mapping[str, Sequence[float]],
    *,
    title: str,
    xlabel: str,
    ylabel: str,
    log: str = "",
    reference: Reference | None = None,
) -> Figure:
    """Draw curves over common points ``x``; a shorter curve has values at the first points only.

    ``log`` names the logarithmic axes: "", "x", "y" or "xy". ``reference`` is a horizontal dashed
    line; the axes always include it.

    Raises ``ValueError`` where there is no curve, or one is longer than ``x``.

    >>> lines([1, 2], {"bound": [-3, -2]}, title="", xlabel="K", ylabel="nats").axes[0].get_xlabel()
    'K'
    """
    if not curves or max(map(len, curves.values())) > len(x):
        sizes = [len(curve) for curve in curves.values()]
        raise ValueError(f"expected curves of at most {len(x)} points, got {sizes}")
    figure = Figure(figsize=(5.4, 3.2), layout="constrained")
    axes = figure.subplots()
    for name, curve in curves.items():
        marker = "o" if len(curve) < 20 else ""
        axes.plot(x[: len(curve)], list(curve), label=name, marker=marker, markersize=4)
    for letter, axis in (("x", axes.xaxis), ("y", axes.yaxis)):
        if letter in log:
            axes.set(**{f"{letter}scale": "log"})
            plain_ticks(axis)
    if reference is not None:
        _reference(axes, reference, "axhline")
        axes.margins(y=0.1)
    axes.set(title=title, xlabel=xlabel, ylabel=ylabel)
    axes.grid(alpha=0.3)
    _key(axes)
    return figure


def histograms(
    values: Mapping[str, Tensor],
    *,
    title: str,
    xlabel: str,
    limits: tuple[float, float] | None = None,
    reference: Reference | None = None,
) -> Figure:
    """Draw the histograms of several samples, one colour each; dotted lines are their means.

    Raises ``ValueError`` where there is no sample.

    >>> histograms({"z": torch.randn(99)}, title="", xlabel="z").axes[0].get_ylabel()
    'density'
    """
    if not values:
        raise ValueError("expected at least one sample, got none")
    figure = Figure(figsize=(5.4, 3.2), layout="constrained")
    axes = figure.subplots()
    samples = {name: value.detach().cpu().double().numpy() for name, value in values.items()}
    if limits is None:
        limits = (min(map(np.min, samples.values())), max(map(np.max, samples.values())))
    for number, (name, sample) in enumerate(samples.items()):
        colour = f"C{number}"
        axes.hist(sample, bins=60, range=limits, density=True, alpha=0.55, color=colour, label=name)
        axes.axvline(float(sample.mean()), color=colour, linestyle=":")
    if reference is not None:
        _reference(axes, reference, "axvline")
    axes.set(title=title, xlabel=xlabel, ylabel="density")
    _key(axes)
    return figure


def scatter(
    x: Tensor,
    y: Tensor,
    *,
    title: str,
    xlabel: str,
    ylabel: str,
    threshold: Reference | None = None,
) -> Figure:
    """Draw one point for each datum, x and y of shape (N,); ``threshold`` is a vertical line.

    Raises ``ValueError`` unless x and y have this shape, with equal N.

    >>> scatter(torch.rand(3), torch.rand(3), title="", xlabel="a", ylabel="b").axes[0].get_ylabel()
    'b'
    """
    if x.ndim != 1 or x.shape != y.shape:
        raise ValueError(f"expected x and y of shape (N,), got {tuple(x.shape)}, {tuple(y.shape)}")
    figure = Figure(figsize=(5.4, 3.2), layout="constrained")
    axes = figure.subplots()
    axes.plot(x.detach().cpu().numpy(), y.detach().cpu().numpy(), "o", label="a datum")
    if threshold is not None:
        _reference(axes, threshold, "axvline")
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set(title=title, xlabel=xlabel, ylabel=ylabel)
    axes.grid(alpha=0.3)
    _key(axes)
    return figure


def comparison(evaluations: Mapping[str, Evaluation]) -> Figure:
    """Draw ELBO and log p(x) of several pairs on the same data, one row for each.

    The error bar of a row is two standard errors of its mean difference from the first row, paired
    by datum. A comparison needs this error; it is much smaller than the error of the mean itself.

    Raises ``ValueError`` where there is no evaluation, or their numbers of data differ.
    """
    sizes = {len(evaluation.log_px) for evaluation in evaluations.values()}
    if len(sizes) != 1:
        raise ValueError(f"expected evaluations of the same data, got {sorted(sizes)} data")
    figure = Figure(figsize=(6, 1.2 + 0.4 * len(evaluations)), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(evaluations))
    kinds = {
        "ELBO": ("o", [evaluation.elbo for evaluation in evaluations.values()]),
        "log p(x), at least": ("s", [evaluation.log_px for evaluation in evaluations.values()]),
    }
    for name, (marker, numbers) in kinds.items():
        means = [float(number.mean()) for number in numbers]
        errors = [2 * _difference_error(number, numbers[0]) for number in numbers]
        axes.errorbar(means, places, xerr=errors, fmt=marker, capsize=3, label=name)
    axes.set_yticks(places, list(evaluations))
    axes.invert_yaxis()
    axes.set(title="guides on the same data", xlabel="nats per datum, larger is better")
    axes.grid(axis="x", alpha=0.3)
    _key(axes)
    return figure


def _difference_error(a: Tensor, b: Tensor) -> float:
    """The standard error of the mean of a - b."""
    return float((a - b).double().std()) / math.sqrt(len(a)) if len(a) > 1 else 0.0


def _reference(axes: Axes, reference: Reference, kind: str) -> None:
    name, value = reference
    getattr(axes, kind)(float(value), color="black", linestyle="--", linewidth=1.2, label=name)


def _key(axes: Axes) -> None:
    """Add a legend if there is more than one name."""
    if len(axes.get_legend_handles_labels()[1]) > 1:
        axes.legend(frameon=False, fontsize=9)
