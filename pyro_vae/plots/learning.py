"""Figures: a quantity on training and test set against the number of training samples."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter


class LearningCurve(NamedTuple):
    """A quantity in nats per datum on training and test set, by the number of training samples."""

    samples: Sequence[float]
    train: Sequence[float]
    test: Sequence[float]


def learning_curves(
    panels: Mapping[str, Mapping[str, LearningCurve]],
    *,
    quantity: str = "bound",
    low: float | None = None,
    columns: int = 5,
) -> Figure:
    """Draw the curves of each panel against the samples, on a log axis: solid train, dashed test.

    ``panels`` holds, by title, the curves of a panel by name. Equal names have equal colours. The
    vertical axis starts at ``low``.
    Raises ``ValueError`` where there are no panels.

    Source: Kingma & Welling, *Auto-Encoding Variational Bayes*, 2013, figures 2 and 3.

    >>> curve = LearningCurve([1e5, 1e6, 1e7], [-150, -120, -100], [-150, -121, -103])
    >>> figure = learning_curves({"z = 3": {"Adam": curve}})
    """
    if not panels:
        raise ValueError("expected at least one panel, got none")
    columns = min(columns, len(panels))
    rows = math.ceil(len(panels) / columns)
    names = list(dict.fromkeys(name for curves in panels.values() for name in curves))
    below = math.ceil(2 * len(names) / columns)  # lines of the legend
    size = (2.6 * columns + 1, 3.0 * rows + 0.2 * below)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flatten()
    for axes, (title, curves) in zip(grid, panels.items(), strict=False):
        for name, curve in curves.items():
            colour = f"C{names.index(name)}"
            axes.plot(curve.samples, curve.train, "-", color=colour, label=f"{name}, train")
            axes.plot(curve.samples, curve.test, "--", color=colour, label=f"{name}, test")
        axes.set(xscale="log", title=title, xlabel="training samples")
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.grid(alpha=0.3)
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    grid[0].set_ylabel(f"{quantity} in nats per datum")
    grid[0].set_ylim(bottom=low)
    lines = {str(line.get_label()): line for axes in grid for line in axes.lines}
    figure.legend(
        list(lines.values()), list(lines), loc="outside lower center", ncols=columns, frameon=False
    )
    return figure
