"""Convolutional networks."""

import math

from torch import nn

from .dense import Flat
from .linear import Linear

Shape = tuple[int, int, int]
"""Channels, height and width of an image."""


def conv_encoder(shape: Shape, outputs: int) -> Flat:
    """Two convolutions (32 and 64 channels) that each halve the image, then 16 dense units.

    (..., C H W) -> (..., outputs).

    Raises ``ValueError`` for images below 4 x 4.

    >>> import torch
    >>> conv_encoder((1, 28, 28), outputs=4)(torch.rand(5, 784)).shape
    torch.Size([5, 4])
    """
    channels, height, width = check_shape(shape, least=4)
    return Flat(
        nn.Conv2d(channels, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        Linear(64 * halved(height, 2) * halved(width, 2), 16),
        nn.ReLU(),
        Linear(16, outputs),
        shape=shape,
    )


def conv_decoder(latent: int, shape: Shape, outputs: int | None = None) -> Flat:
    """The mirror of :func:`conv_encoder`, with transposed convolutions that double the image.

    (..., latent) -> (..., outputs). A dense layer first makes an image of 64 channels, with a
    quarter of the height and width. ``outputs`` must be a multiple of H * W; by default it is one
    per pixel.

    Raises ``ValueError`` for images below 4 x 4, or ``outputs`` that are not such a multiple.
    """
    _, height, width = check_shape(shape, least=4)
    small = (64, halved(height, 2), halved(width, 2))
    return Flat(
        Linear(latent, math.prod(small)),
        nn.ReLU(),
        nn.Unflatten(1, small),
        _doubling(64, 64, halved(height, 1), halved(width, 1)),
        nn.ReLU(),
        _doubling(64, 32, height, width),
        nn.ReLU(),
        nn.ConvTranspose2d(32, channels_for(shape, outputs), 3, padding=1),
        shape=(latent,),
    )


def _doubling(channels_in: int, channels_out: int, height: int, width: int) -> nn.ConvTranspose2d:
    """A transposed convolution from an image of half the side, rounded up, to (height, width)."""
    padding = (1 - height % 2, 1 - width % 2)
    return nn.ConvTranspose2d(
        channels_in, channels_out, 3, stride=2, padding=1, output_padding=padding
    )


def halved(side: int, times: int) -> int:
    """The side of an image after ``times`` convolutions of stride 2, which round up."""
    return math.ceil(side / (1 << times))


def check_shape(shape: Shape, least: int) -> Shape:
    """Return the shape (C, H, W); raise ``ValueError`` where a side is below ``least``."""
    if len(shape) != 3 or shape[0] < 1 or min(shape[1:]) < least:
        raise ValueError(
            f"expected an image shape (C, H, W) of at least {least} x {least} pixels, got {shape}"
        )
    return shape


def channels_for(shape: Shape, outputs: int | None) -> int:
    """How many channels an image of this size needs for ``outputs`` numbers."""
    if outputs is None:
        return shape[0]
    channels, rest = divmod(outputs, shape[1] * shape[2])
    if rest or channels < 1:
        raise ValueError(f"expected outputs in multiples of {shape[1]} x {shape[2]}, got {outputs}")
    return channels
