"""Figures: numbers of several methods side by side."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

Table = Mapping[str, Mapping[str, float]]
"""A number for each group and each method in it."""


def bars(means: Table, errors: Table | None = None, *, ylabel: str, title: str = "") -> Figure:
    """Draw a group of bars for each entry of ``means``, with error bars of one standard error.

    Raises ``ValueError`` where there are no means.

    >>> bars({"iris": {"mean": 1.0, "MIWAE": 0.4}}, ylabel="error").axes[0].get_ylabel()
    'error'
    """
    if not means:
        raise ValueError("expected at least one group of means, got none")
    methods = list(next(iter(means.values())))
    figure = Figure(figsize=(1.5 + 1.4 * len(means), 3.2), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(means))
    width = 0.8 / len(methods)
    for number, method in enumerate(methods):
        heights = [group[method] for group in means.values()]
        spread = None if errors is None else [errors[name][method] for name in means]
        at = places + (number - (len(methods) - 1) / 2) * width
        axes.bar(at, heights, 0.95 * width, yerr=spread, label=method, capsize=2)
    axes.set_xticks(places, list(means))
    axes.set(ylabel=ylabel, title=title)
    axes.legend(frameon=False, fontsize=8)
    return figure


def recovered(truth: Mapping[str, Tensor], estimates: Mapping[str, Tensor]) -> Figure:
    """Draw estimates against the true parameters of a simulation, one panel for each name.

    ``truth`` holds (D,) and ``estimates`` (R, D) from R repetitions by name. Points are the means
    over repetitions, and error bars are one standard deviation.

    >>> import torch
    >>> recovered({"mean": torch.ones(3)}, {"mean": torch.rand(2, 3)}).axes[0].get_title()
    'mean'
    """
    figure = Figure(figsize=(3.2 * len(truth), 3.2), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(truth), squeeze=False)[0], truth, strict=True):
        x = truth[name].detach().numpy()
        y = estimates[name].detach()
        spread = y.std(0).numpy() if len(y) > 1 else None
        axes.errorbar(x, y.mean(0).numpy(), yerr=spread, fmt=".", alpha=0.8)
        axes.axline((float(x.min()), float(x.min())), slope=1, color="black", linewidth=0.8)
        axes.set(title=name, xlabel="simulated", ylabel="estimated")
        axes.grid(alpha=0.3)
    return figure


def points(sets: Mapping[str, Tensor], *, limit: float | None = None) -> Figure:
    """Draw sets of points (N, 2) in the plane, one panel each, on axes from -limit to limit.

    Raises ``ValueError`` for points of other dimensions.

    >>> import torch
    >>> len(points({"data": torch.randn(9, 2), "samples": torch.randn(9, 2)}).axes)
    2
    """
    shapes = {name: tuple(x.shape) for name, x in sets.items()}
    if not sets or any(len(shape) != 2 or shape[1] != 2 for shape in shapes.values()):
        raise ValueError(f"expected sets of points (N, 2), got {shapes}")
    bound = limit or max(float(x.abs().max()) for x in sets.values())
    figure = Figure(figsize=(2.2 * len(sets), 2.5), layout="constrained")
    panels = figure.subplots(1, len(sets), squeeze=False)[0]
    for axes, (name, x) in zip(panels, sets.items(), strict=True):
        axes.plot(*x.detach().T.numpy(), ".", markersize=2)
        axes.set(title=name, xlim=(-bound, bound), ylim=(-bound, bound), aspect="equal")
        axes.set(xlabel="first dimension")
    figure.axes[0].set_ylabel("second dimension")
    return figure
