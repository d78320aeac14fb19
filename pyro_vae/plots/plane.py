"""Figures: densities and codes in a latent space of two dimensions.

Every function returns a ``matplotlib.figure.Figure`` and changes no global state of matplotlib.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from .mosaic import Shape, as_tiles

MASSES = (0.5, 0.9, 0.99)
"""The probability masses of the regions that are drawn."""

Density = npt.NDArray[np.float64]


def posteriors(
    axis: Tensor,
    log_posterior: Tensor,
    others: Mapping[str, Tensor],
    x: Tensor,
    shape: Shape,
    *,
    peak: float = 1.0,
) -> Figure:
    """Draw the posterior of each datum, with a guide over it: a row per datum, a column per guide.

    Blue: the posterior's regions of 50, 90 and 99 % mass. Red: the same regions of a guide as
    lines, or its draws as dots.

    - ``axis`` (n,): the points of the grid in each of the two dimensions;
    - ``log_posterior`` (B, n, n): log p(z | x) on the grid, z1 first, up to a constant;
    - ``others``: log q(z | x) on the grid, (B, n, n), or draws of z, (B, S, 2), by name;
    - ``x`` (B, D), ``shape`` (C, H, W): the pictures of the first column.

    Raises ``ValueError`` where the shapes do not fit together.
    """
    side = len(axis)
    if log_posterior.shape != (len(x), side, side):
        raise ValueError(
            f"expected log_posterior of shape {(len(x), side, side)}, "
            f"got {tuple(log_posterior.shape)}"
        )
    for name, other in others.items():
        if other.shape != log_posterior.shape and other.shape[::2] != (len(x), 2):
            raise ValueError(
                f"expected {name} of shape {tuple(log_posterior.shape)} or ({len(x)}, S, 2), "
                f"got {tuple(other.shape)}"
            )
    tiles = as_tiles(x, shape, peak)
    columns = len(others) + 1
    figure = Figure(figsize=(1.25 * columns, 1.3 * len(x) + 0.5), layout="constrained")
    panels = figure.subplots(len(x), columns, squeeze=False)
    dots = all(other.ndim == 3 and other.shape[1:] != (side, side) for other in others.values())
    red = "draws" if dots else "the same of a guide"
    figure.suptitle(f"blue: 50, 90 and 99 % of the posterior; red: {red}", fontsize=9)
    for row, (tile, log_p) in enumerate(zip(tiles, log_posterior, strict=True)):
        panels[row, 0].imshow(tile, interpolation="nearest")
        panels[row, 0].set_axis_off()
        for axes, (name, other) in zip(panels[row, 1:], others.items(), strict=True):
            _panel(axes, axis, _density(log_p), other[row])
            if row == 0:
                axes.set_title(name, fontsize=9)
    return figure


def codes(z: Mapping[str, Tensor], labels: Tensor | None = None) -> Figure:
    """Draw codes z (N, 2) of several encoders side by side, coloured by class.

    Circles hold 50, 90 and 99 % of the prior N(0, I).
    Raises ``ValueError`` for codes of other than two dimensions.

    >>> len(codes({"a": torch.randn(9, 2), "b": torch.randn(9, 2)}).axes)
    2
    """
    for name, points in z.items():
        if points.ndim != 2 or points.shape[1] != 2:
            raise ValueError(f"expected codes of shape (N, 2), got {tuple(points.shape)} of {name}")
    figure = Figure(figsize=(2.7 * len(z) + 0.6, 3.1), layout="constrained")
    panels = figure.subplots(1, len(z), squeeze=False)[0]
    classes = None if labels is None else labels.cpu().numpy()
    options: dict[str, Any] = {"s": 3, "linewidths": 0}
    options |= {} if classes is None else {"c": classes, "cmap": "tab10"}
    for axes, (name, points) in zip(panels, z.items(), strict=True):
        x, y = points.cpu().numpy().T
        dots = axes.scatter(x, y, **options)
        angle = np.linspace(0, 2 * math.pi, 100)
        for mass in MASSES:
            radius = math.sqrt(-2 * math.log(1 - mass))
            axes.plot(radius * np.cos(angle), radius * np.sin(angle), color="black", linewidth=0.7)
        axes.set(title=name, xlabel="$z_1$", aspect="equal")
        axes.set_adjustable("datalim")
    panels[0].set_ylabel("$z_2$")
    if classes is not None:
        handles, names = dots.legend_elements()
        key: dict[str, Any] = {"loc": "center left", "bbox_to_anchor": (1, 0.5)}
        panels[-1].legend(handles, names, title="class", frameon=False, fontsize=8, **key)
    return figure


def _panel(axes: Axes, axis: Tensor, density: Density, other: Tensor) -> None:
    """One posterior, filled, and one guide over it, as lines or dots."""
    points = axis.cpu().numpy()
    heights = [*_heights(density), 1.01 * float(density.max())]
    axes.contourf(points, points, density.T, heights, cmap="Blues")
    if other.shape == density.shape:
        guide = _density(other)
        levels = _heights(guide)
        if levels[0] < levels[1] < levels[2]:
            axes.contour(points, points, guide.T, levels, linewidths=0.8, colors="crimson")
    else:
        z1, z2 = other.cpu().numpy().T
        axes.scatter(z1, z2, s=2, color="crimson", linewidths=0)
    x, y = _window(points, density)
    axes.set(xlim=x, ylim=y, xticks=[], yticks=[])


def _density(log_density: Tensor) -> Density:
    """Convert a log density on a grid to probabilities that sum to 1."""
    log = log_density.detach().double().cpu()
    density: Density = torch.softmax(log.flatten(), 0).reshape(log.shape).numpy()
    return density


def _heights(density: Density) -> list[float]:
    """The heights above which a density holds 99, 90 and 50 % of its mass."""
    height = np.sort(density.flatten())[::-1]
    mass = np.cumsum(height)
    return [float(height[int((mass < wanted).sum())]) for wanted in sorted(MASSES, reverse=True)]


def _window(axis: npt.NDArray[Any], density: Density) -> list[tuple[float, float]]:
    """A square around nearly all the mass."""
    inside = np.argwhere(density > 1e-4 * density.max())
    low, high = axis[inside.min(0)], axis[inside.max(0)]
    half = 0.65 * float((high - low).max())
    return [(float(centre) - half, float(centre) + half) for centre in (low + high) / 2]
