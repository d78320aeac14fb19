"""Small binary pictures of one shape each, generated from known factors."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from .images import Images, Pixels

FACTORS = ("shape", "scale", "orientation", "x", "y")
"""The names of the factors, in the order of their columns."""


class Sprites(NamedTuple):
    """Pictures, and the factors that they were generated from."""

    images: Images
    """Static pixels of shape (1, size, size); the labels are the shapes."""
    factors: Tensor
    """(N, 5) int64: the number of the value of each factor in :data:`FACTORS`."""


def sprites(size: int = 32, *, scales: int = 3, orientations: int = 8, places: int = 12) -> Sprites:
    """Make every combination of the factors once; nothing is random.

    The shapes are a rectangle, an ellipse and a triangle, twice as long as wide. The orientations
    cover half a circle, so that no two orientations of a shape are equal. The picture is the square
    from -1 to 1 in each direction: half lengths are 0.3 to 0.5, and centres are -0.5 to 0.5.

    Raises ``ValueError`` for a size below 8, or a factor without values.

    >>> images, factors = sprites(16, scales=2, orientations=4, places=3)
    >>> images.values.shape, factors.shape
    (torch.Size([216, 256]), torch.Size([216, 5]))
    """
    if size < 8 or min(scales, orientations, places) < 1:
        raise ValueError(
            "expected a size of at least 8 and at least one value of each factor, got size "
            f"{size}, {scales} scales, {orientations} orientations and {places} places"
        )
    numbers = [torch.arange(n) for n in (3, scales, orientations, places, places)]
    factors = torch.cartesian_prod(*numbers)
    shape, scale, orientation, column, row = factors.unsqueeze(-1).unbind(1)  # (N, 1) each
    length = _spread(0.3, 0.5, scales)[scale]
    angle = math.pi * orientation / orientations
    centres = _spread(-0.5, 0.5, places)
    pixels = (torch.arange(size) + 0.5) * 2 / size - 1
    right = pixels.repeat(size) - centres[column]
    down = pixels.repeat_interleave(size) - centres[row]
    u = (right * angle.cos() + down * angle.sin()) / length
    v = (down * angle.cos() - right * angle.sin()) / length * 2
    inside = torch.stack(
        [
            (u.abs() <= 1) & (v.abs() <= 1),
            u**2 + v**2 <= 1,
            (u >= -1) & (v.abs() <= (1 - u) / 2),
        ]
    )
    values = inside.gather(0, shape.expand(-1, size * size).unsqueeze(0))[0].to(torch.uint8)
    labels = factors[:, 0]
    return Sprites(Images(values, (1, size, size), Pixels.STATIC, 1, labels), factors)


def _spread(low: float, high: float, number: int) -> Tensor:
    """Equally spaced values from low to high; a single value is in the middle."""
    if number == 1:
        return torch.tensor([(low + high) / 2])
    return torch.linspace(low, high, number)
