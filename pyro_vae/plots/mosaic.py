"""Several pictures arranged in one picture, shown pixel by pixel, and written to a file."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from ..training.checkpoint import replacing

Shape = tuple[int, int, int]
"""Channels, height and width of a picture."""

Pixels = npt.NDArray[np.float32]

GAP = 1
"""The number of pixels between two pictures."""

GAP_GREY = 0.3


def as_tiles(x: Tensor, shape: Shape, peak: float) -> Pixels:
    """Pictures (B, H, W, 3), from black at 0 to white at 1."""
    channels, height, width = shape
    if channels not in (1, 3):
        raise ValueError(f"expected shape (C, H, W) with 1 or 3 channels, got {shape}")
    if x.ndim != 2 or len(x) == 0 or x.shape[1] != math.prod(shape):
        raise ValueError(
            f"expected pictures of shape (B, {math.prod(shape)}) for {shape}, got {tuple(x.shape)}"
        )
    grey = (x.detach().float().cpu() / peak).clamp(0, 1).view(-1, *shape)
    return grey.expand(-1, 3, height, width).permute(0, 2, 3, 1).numpy()


def pad(tiles: Pixels, count: int) -> Pixels:
    """Append empty pictures up to ``count``."""
    return np.concatenate(
        [tiles, np.full((count - len(tiles), *tiles.shape[1:]), GAP_GREY, np.float32)]
    )


def lay_out(tiles: Pixels, columns: int, gap: int) -> Pixels:
    """Arrange pictures row by row in one picture, with ``gap`` pixels around each."""
    rows = -(-len(tiles) // columns)
    framed = np.pad(
        pad(tiles, rows * columns), ((0, 0), (gap, 0), (gap, 0), (0, 0)), constant_values=GAP_GREY
    )
    _, height, width, _ = framed.shape
    grid = (
        framed.reshape(rows, columns, height, width, 3)
        .transpose(0, 2, 1, 3, 4)
        .reshape(rows * height, columns * width, 3)
    )
    return np.pad(grid, ((0, gap), (0, gap), (0, 0)), constant_values=GAP_GREY)


def show(mosaic: Pixels, title: str, *, labelled: bool = False) -> Figure:
    """A figure that shows each pixel of the mosaic as a square of whole screen pixels (100 dpi)."""
    height, width, _ = mosaic.shape
    zoom = max(1, 600 // width)
    height = height * zoom
    width = width * zoom
    left, bottom, right, top = (60, 45, 10, 30) if labelled else (0, 0, 0, 30 if title else 0)
    full_width = left + width + right
    full_height = bottom + height + top
    figure = Figure(figsize=(full_width / 100, full_height / 100), dpi=100)
    axes = figure.add_axes(
        (left / full_width, bottom / full_height, width / full_width, height / full_height)
    )
    axes.imshow(mosaic, interpolation="nearest")
    axes.set_axis_on() if labelled else axes.set_axis_off()
    axes.set_title(title, fontsize=10)
    return figure


def save(figure: Figure, path: str | Path) -> Path:
    """Write a figure as a small PNG, completely or not at all; return the path."""
    path = Path(path)
    canvas: Any = FigureCanvasAgg(figure)  # matplotlib leaves its methods untyped
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3]
    grey = bool((pixels == pixels[..., :1]).all())
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        Image.fromarray(pixels[..., 0] if grey else pixels).save(file, "PNG", optimize=True)
    return path
