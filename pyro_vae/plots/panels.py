"""Figures: what a trained pair looks like.

Every function returns a ``matplotlib.figure.Figure`` and touches no global state of matplotlib (no pyplot, no backend).
Pictures ``x`` are (B, D), flattened from ``shape`` = (C, H, W) with one or three channels; pixels are drawn from black at 0
to white at ``peak`` (16 for the digits' counts, 255 for 8-bit pixels). Programs run in ``eval`` mode and learn nothing.
"""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image
from torch import Tensor

from ..families.moments import mean as mean_of
from ..models.vae import VAE
from ..programs.isolation import looking
from ..training.checkpoint import replacing
from ..training.metrics import Record

Shape = tuple[int, int, int]


Pixels = npt.NDArray[np.float32]


GAP = 1
"""Pixels between two pictures."""


GAP_GREY = 0.3


def images(
    x: Tensor, shape: Shape, *, columns: int | None = None, peak: float = 1.0, title: str = ""
) -> Figure:
    """Draw pictures (B, D) in a grid of ``columns``, row by row; by default as square as it gets.

    Raises ``ValueError`` where x is not (B, C H W) with B >= 1, or shape has other than one or three channels.

    >>> images(torch.rand(6, 64), (1, 8, 8), columns=3).axes[0].images[0].get_array().shape
    (19, 28, 3)
    """
    tiles = _tiles(x, shape, peak)
    columns = columns or math.ceil(math.sqrt(len(tiles)))
    return _draw(_mosaic(tiles, columns, GAP), title)


def samples(vae: VAE, shape: Shape, n: int = 64, *, mean: bool = True, peak: float = 1.0) -> Figure:
    """Draw ``n`` samples of the model: z ~ p(z), then the means E[x | z], or without ``mean`` draws x ~ p(x | z)."""
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
    before, after = _tiles(x, shape, peak), _tiles(again, shape, peak)
    columns = min(columns, len(before))
    rows = [
        tiles[i : i + columns] for i in range(0, len(before), columns) for tiles in (before, after)
    ]
    pairs = np.concatenate([_pad(row, columns) for row in rows])
    return _draw(_mosaic(pairs, columns, GAP), "originals, each above its reconstruction")


def interpolations(
    vae: VAE, a: Tensor, b: Tensor, shape: Shape, *, n: int = 8, peak: float = 1.0
) -> Figure:
    """Draw a row for each pair of pictures: a, then E[x | z] at ``n`` points z from E_q[z | a] to E_q[z | b], then b."""
    if a.shape != b.shape:
        raise ValueError(
            f"expected as many pictures at both ends, got {tuple(a.shape)} and {tuple(b.shape)}"
        )
    with looking([vae]):
        weight = torch.linspace(0, 1, n, device=a.device)[:, None, None]
        path = torch.lerp(vae.encode(a), vae.encode(b), weight)
        path = _decode(vae, path.flatten(0, 1)).view(n, len(a), -1)
    rows = torch.cat([a[None], path, b[None]]).transpose(0, 1)
    return images(
        rows.flatten(0, 1),
        shape,
        columns=n + 2,
        peak=peak,
        title="interpolations between the first and last of each row",
    )


def manifold(vae: VAE, shape: Shape, n: int = 20, *, peak: float = 1.0) -> Figure:
    """Draw E[x | z] on an n x n grid of a two-dimensional latent space, at the quantiles (i + 1/2) / n of N(0, 1).

    Source: Kingma & Welling, *Auto-Encoding Variational Bayes*, 2013, figure 4.
    Raises ``ValueError`` for a latent space of other than two dimensions.
    """
    _expect_latents(vae, 2, "a manifold")
    ticks = torch.special.ndtri((torch.arange(n) + 0.5) / n)
    grid = torch.cartesian_prod(ticks.flip(0), ticks).flip(
        -1
    )  # rows from the largest z2 down; columns from the smallest z1 up
    with looking([vae]):
        x = _decode(vae, grid.to(_device(vae)))
    figure = _draw(
        _mosaic(_tiles(x, shape, peak), n, 0), "E[x | z] at the quantiles of N(0, 1)", labelled=True
    )
    axes, (_, height, width) = figure.axes[0], shape
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
    """Draw a row for each latent: E[x | z] for z_d from -span to span, the others at the posterior mean of one ``x``.

    ``x`` is (D,); ``dims`` are the latent dimensions to show, by default all.
    """
    with looking([vae]):
        z = vae.encode(x[None])[0]
        dims = range(len(z)) if dims is None else dims
        rows = z.repeat(len(dims), n, 1)
        for row, dim in zip(rows, dims, strict=True):
            row[:, dim] = torch.linspace(-span, span, n, device=z.device)
        pictures = _decode(vae, rows.flatten(0, 1))
    figure = _draw(
        _mosaic(_tiles(pictures, shape, peak), n, GAP),
        f"one latent at a time, from {-span:g} to {span:g}",
        labelled=True,
    )
    centres = [GAP + i * (shape[1] + GAP) + (shape[1] - 1) / 2 for i in range(len(dims))]
    figure.axes[0].set_yticks(centres, [f"z{dim}" for dim in dims])
    figure.axes[0].set_xticks([])
    return figure


def latent_scatter(means: Tensor, labels: Tensor | None = None, *, limit: int = 5000) -> Figure:
    """Draw the posterior means (N, D) of at most ``limit`` data, coloured by class; for D > 2 their two principal components.

    Raises ``ValueError`` unless means is (N, D) with D >= 2 and labels, if given, is (N,).
    """
    if means.ndim != 2 or means.shape[1] < 2:
        raise ValueError(
            f"expected means of shape (N, D) with D of at least 2, got {tuple(means.shape)}"
        )
    if labels is not None and tuple(labels.shape) != (len(means),):
        raise ValueError(
            f"expected one label for each of {len(means)} means, got labels of shape {tuple(labels.shape)}"
        )
    points, names = _plane(means[:limit].cpu().numpy())
    classes = np.zeros(len(points), int) if labels is None else labels[:limit].cpu().numpy()
    figure = Figure(figsize=(5.4, 4.6), layout="constrained")
    axes = figure.add_subplot()
    for index, label in enumerate(np.unique(classes)):
        x, y = points[classes == label].T
        axes.scatter(
            x,
            y,
            s=min(20, max(4, 6000 / len(points))),
            alpha=0.7,
            linewidths=0,
            color=_colour(index),
            label=str(label),
        )
    axes.set(title="posterior means", xlabel=names[0], ylabel=names[1], aspect="equal")
    axes.set_adjustable("datalim")
    if labels is not None and len(np.unique(classes)) <= 20:
        axes.legend(
            title="class",
            loc="center left",
            bbox_to_anchor=(1, 0.5),
            markerscale=2.5,
            frameon=False,
        )
    return figure


def curves(records: Iterable[Record]) -> Figure:
    """Draw, by epoch, the ELBO of train and validation set, and its two terms, in nats per datum.

    The view is that of all but the first tenth of the epochs. Raises ``ValueError`` where there are no records.
    """
    records = list(records)
    if not records:
        raise ValueError("expected at least one record, got none")
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    panels = {"elbo": "ELBO", "log_likelihood": "E[log p(x | z)]", "kl": "KL(q(z | x), p(z))"}
    for axes, (name, title) in zip(figure.subplots(1, 3), panels.items(), strict=True):
        for split, style in (("train", "-"), ("validation", "--")):
            values = np.array(
                [getattr(record, f"{split}_{name}") for record in records], float
            )  # None becomes NaN
            if np.isfinite(values).any():
                axes.plot(
                    [record.epoch for record in records],
                    values,
                    style,
                    label=split,
                    marker="." if len(values) < 20 else "",
                )
        _settle(axes)
        axes.set(title=title, xlabel="epoch")
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("nats per datum")
    figure.axes[0].legend(frameon=False)
    return figure


def save(figure: Figure, path: str | Path) -> Path:
    """Write a figure as a small PNG, whole or not at all; return the path."""
    path = Path(path)
    canvas: Any = FigureCanvasAgg(figure)  # matplotlib leaves its methods untyped
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3]
    grey = bool((pixels == pixels[..., :1]).all())
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        Image.fromarray(pixels[..., 0] if grey else pixels).save(file, "PNG", optimize=True)
    return path


def _settle(axes: Axes) -> None:
    """Show the values of all but the first tenth of the epochs: where training starts says nothing of where it ends."""
    lines = [np.asarray(line.get_ydata(), float) for line in axes.lines]
    values = np.concatenate([line[len(line) // 10 :] for line in lines] or [np.empty(0)])
    values = values[np.isfinite(values)]
    if len(values) and np.ptp(values) > 0:
        margin = 0.05 * np.ptp(values)
        axes.set_ylim(float(values.min() - margin), float(values.max() + margin))


def _tiles(x: Tensor, shape: Shape, peak: float) -> Pixels:
    """Pictures (B, H, W, 3), from black at 0 to white at 1."""
    channels, height, width = shape
    if channels not in (1, 3):
        raise ValueError(f"expected shape (C, H, W) with 1 or 3 channels, got {shape}")
    if x.ndim != 2 or len(x) == 0 or x.shape[1] != math.prod(shape):
        raise ValueError(
            f"expected pictures of shape (B, {math.prod(shape)}) for {shape}, got {tuple(x.shape)}"
        )
    tiles = (
        (x.detach().float().cpu() / peak).clamp(0, 1).view(-1, *shape).expand(-1, 3, height, width)
    )
    return tiles.permute(0, 2, 3, 1).numpy()


def _pad(tiles: Pixels, count: int) -> Pixels:
    """Fill up with empty pictures to ``count``."""
    return np.concatenate(
        [tiles, np.full((count - len(tiles), *tiles.shape[1:]), GAP_GREY, np.float32)]
    )


def _mosaic(tiles: Pixels, columns: int, gap: int) -> Pixels:
    """Lay pictures out row by row in one picture, ``gap`` pixels apart and from the edge."""
    rows = -(-len(tiles) // columns)
    framed = np.pad(
        _pad(tiles, rows * columns), ((0, 0), (gap, 0), (gap, 0), (0, 0)), constant_values=GAP_GREY
    )
    _, height, width, _ = framed.shape
    grid = (
        framed.reshape(rows, columns, height, width, 3)
        .transpose(0, 2, 1, 3, 4)
        .reshape(rows * height, columns * width, 3)
    )
    return np.pad(grid, ((0, gap), (0, gap), (0, 0)), constant_values=GAP_GREY)


def _draw(mosaic: Pixels, title: str, *, labelled: bool = False) -> Figure:
    """A figure that shows every pixel of the mosaic as a square of whole screen pixels (at 100 dpi)."""
    height, width, _ = mosaic.shape
    zoom = max(1, 600 // width)
    height, width = height * zoom, width * zoom
    left, bottom, right, top = (60, 45, 10, 30) if labelled else (0, 0, 0, 30 if title else 0)
    full_width, full_height = left + width + right, bottom + height + top
    figure = Figure(figsize=(full_width / 100, full_height / 100), dpi=100)
    axes = figure.add_axes(
        (left / full_width, bottom / full_height, width / full_width, height / full_height)
    )
    axes.imshow(mosaic, interpolation="nearest")
    axes.set_axis_on() if labelled else axes.set_axis_off()
    axes.set_title(title, fontsize=10)
    return figure


def _decode(vae: VAE, z: Tensor) -> Tensor:
    """E[x | z]."""
    return mean_of(vae.decoder(z))


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
