"""Figures: pictures that a trained VAE generates, and its latent space.

Every function returns a ``matplotlib.figure.Figure`` and changes no global state of matplotlib (no
pyplot, no backend). Pictures ``x`` are (B, D), flattened from ``shape`` = (C, H, W) with one or
three channels. Pixels are drawn from black at 0 to white at ``peak`` (16 for the counts of the
digits, 255 for 8-bit pixels). The VAE runs in ``eval`` mode, and nothing in it changes.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from matplotlib import colormaps
from matplotlib.figure import Figure
from torch import Tensor

from ..evaluation.generation import decode, interpolate, traverse
from ..models.vae import VAE
from ..programs.isolation import looking
from .history import curves
from .mosaic import GAP, GAP_GREY, Shape, as_tiles, lay_out, pad, save, show

__all__ = [
    "GAP",
    "GAP_GREY",
    "Shape",
    "curves",
    "images",
    "interpolations",
    "latent_scatter",
    "manifold",
    "reconstructions",
    "samples",
    "save",
    "traversal",
]


def images(
    x: Tensor, shape: Shape, *, columns: int | None = None, peak: float = 1.0, title: str = ""
) -> Figure:
    """Draw pictures (B, D) row by row in a grid of ``columns``, by default nearly square.

    Raises ``ValueError`` where x is not (B, C H W) with B >= 1, or C is not 1 or 3.

    >>> images(torch.rand(6, 64), (1, 8, 8), columns=3).axes[0].images[0].get_array().shape
    (19, 28, 3)
    """
    tiles = as_tiles(x, shape, peak)
    columns = columns or math.ceil(math.sqrt(len(tiles)))
    return show(lay_out(tiles, columns, GAP), title)


def samples(vae: VAE, shape: Shape, n: int = 64, *, mean: bool = True, peak: float = 1.0) -> Figure:
    """Draw ``n`` samples of the model: the means E[x | z] at z ~ p(z).

    Without ``mean`` the pictures are draws x ~ p(x | z).
    """
    with looking([vae]):
        x = vae.sample(n, mean=mean)
    return images(
        x,
        shape,
        peak=peak,
        title="samples: " + ("means E[x | z], z ~ p(z)" if mean else "x ~ p(x | z), z ~ p(z)"),
    )


def reconstructions(
    vae: VAE, x: Tensor, shape: Shape, *, columns: int = 10, peak: float = 1.0
) -> Figure:
    """Draw each picture of ``x`` above its reconstruction E[x | z], z = E_q[z | x]."""
    with looking([vae]):
        again = vae.reconstruct(x)
    before = as_tiles(x, shape, peak)
    after = as_tiles(again, shape, peak)
    columns = min(columns, len(before))
    rows = [
        tiles[i : i + columns] for i in range(0, len(before), columns) for tiles in (before, after)
    ]
    pairs = np.concatenate([pad(row, columns) for row in rows])
    return show(lay_out(pairs, columns, GAP), "originals, each above its reconstruction")


def interpolations(
    vae: VAE, a: Tensor, b: Tensor, shape: Shape, *, n: int = 8, peak: float = 1.0
) -> Figure:
    """Draw a row for each pair of pictures: a, ``n`` interpolations, b.

    The interpolations are E[x | z] at points z from E_q[z | a] to E_q[z | b].
    """
    path = interpolate(vae, a, b, n)
    rows = torch.cat([a[None], path, b[None]]).transpose(0, 1)
    return images(
        rows.flatten(0, 1),
        shape,
        columns=n + 2,
        peak=peak,
        title="interpolations between the first and last of each row",
    )


def manifold(vae: VAE, shape: Shape, n: int = 20, *, peak: float = 1.0) -> Figure:
    """Draw E[x | z] on an n x n grid of a two-dimensional latent space.

    The points of the grid are the quantiles (i + 1/2) / n of N(0, 1).

    Source: Kingma & Welling, *Auto-Encoding Variational Bayes*, 2013, figure 4.
    Raises ``ValueError`` for a latent space of other than two dimensions.
    """
    _expect_latents(vae, 2, "a manifold")
    ticks = torch.special.ndtri((torch.arange(n) + 0.5) / n)
    # rows from the largest z2 down, columns from the smallest z1 up
    grid = torch.cartesian_prod(ticks.flip(0), ticks).flip(-1)
    x = decode(vae, grid.to(_device(vae)))
    figure = show(
        lay_out(as_tiles(x, shape, peak), n, 0),
        "E[x | z] at the quantiles of N(0, 1)",
        labelled=True,
    )
    axes = figure.axes[0]
    (_, height, width) = shape
    shown = sorted({0, n // 4, n // 2, n - 1 - n // 4, n - 1})
    labels = [f"{float(ticks[i]):.1f}" for i in shown]
    axes.set_xticks([(i + 0.5) * width - 0.5 for i in shown], labels)
    axes.set_yticks([(n - i - 0.5) * height - 0.5 for i in shown], labels)
    axes.set(xlabel="z₁", ylabel="z₂")
    return figure


def traversal(
    vae: VAE,
    x: Tensor,
    shape: Shape,
    *,
    dims: Sequence[int] | None = None,
    n: int = 9,
    span: float = 2.5,
    peak: float = 1.0,
) -> Figure:
    """Draw a row for each latent z_d: E[x | z] for z_d from -span to span.

    The other latents stay at the posterior mean of one ``x``, (D,). ``dims`` are the latent
    dimensions to show, by default all of them.
    """
    pictures = traverse(vae, x, dims, n=n, span=span)
    shown = range(len(pictures)) if dims is None else dims
    figure = show(
        lay_out(as_tiles(pictures.flatten(0, 1), shape, peak), n, GAP),
        f"one latent at a time, from {-span:g} to {span:g}",
        labelled=True,
    )
    centres = [GAP + i * (shape[1] + GAP) + (shape[1] - 1) / 2 for i in range(len(shown))]
    figure.axes[0].set_yticks(centres, [f"z{dim}" for dim in shown])
    figure.axes[0].set_xticks([])
    return figure


def latent_scatter(
    means: Tensor,
    labels: Tensor | None = None,
    *,
    classes: Sequence[str] = (),
    limit: int = 5000,
) -> Figure:
    """Draw the posterior means (N, D) of at most ``limit`` data, coloured by class.

    For D > 2 the axes are their first two principal components. ``classes`` are the names of the
    labels 0, 1, ..., by default their numbers.

    Raises ``ValueError`` unless means is (N, D) with D >= 2 and labels, if given, is (N,).
    """
    if means.ndim != 2 or means.shape[1] < 2:
        raise ValueError(
            f"expected means of shape (N, D) with D of at least 2, got {tuple(means.shape)}"
        )
    if labels is not None and tuple(labels.shape) != (len(means),):
        raise ValueError(
            f"expected one label for each of {len(means)} means, "
            f"got labels of shape {tuple(labels.shape)}"
        )
    points, names = _plane(means[:limit].cpu().numpy())
    numbers = np.zeros(len(points), int) if labels is None else labels[:limit].cpu().numpy()
    figure = Figure(figsize=(5.4, 4.6), layout="constrained")
    axes = figure.add_subplot()
    size = min(20, max(4, 6000 / len(points)))
    for index, label in enumerate(np.unique(numbers)):
        x, y = points[numbers == label].T
        name = classes[label] if 0 <= label < len(classes) else str(label)
        options = {"color": _colour(index), "label": name}
        axes.scatter(x, y, s=size, alpha=0.7, linewidths=0, **options)
    axes.set(title="posterior means", xlabel=names[0], ylabel=names[1], aspect="equal")
    axes.set_adjustable("datalim")
    if labels is not None and len(np.unique(numbers)) <= 20:
        beside: dict[str, Any] = {"loc": "center left", "bbox_to_anchor": (1, 0.5)}
        axes.legend(title="class", markerscale=2.5, frameon=False, **beside)
    return figure


def _device(vae: VAE) -> torch.device:
    device: torch.device = next(vae.parameters()).device
    return device


def _expect_latents(vae: VAE, dims: int, what: str) -> None:
    (got,) = vae.prior().event_shape
    if got != dims:
        raise ValueError(f"expected a latent space of {dims} dimensions for {what}, got {got}")


def _plane(points: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], tuple[str, str]]:
    """The points themselves in two dimensions, otherwise their first two principal components."""
    if points.shape[1] == 2:
        return points, ("z₁", "z₂")
    from sklearn.decomposition import PCA  # slow to import

    pca = PCA(2, random_state=0)
    plane = pca.fit_transform(points)
    first, second = pca.explained_variance_ratio_
    return plane, (f"first principal component ({first:.0%} of variance)", f"second ({second:.0%})")


def _colour(index: int) -> Any:
    return colormaps["tab10" if index < 10 else "tab20"](index % 20)
