"""Residual convolutional networks with batch normalisation."""

import itertools
import math

from torch import Tensor, nn

from .conv import Shape, channels_for, check_shape, halved
from .dense import Flat
from .linear import Linear


def residual_encoder(shape: Shape, outputs: int) -> Flat:
    """Four convolutions (4, 8, 16, 32 channels) that each halve the image, and a linear layer.

    Batch normalisation and a leaky ReLU follow each convolution. (..., C H W) -> (..., outputs).

    Raises ``ValueError`` for images below 8 x 8.

    >>> import torch
    >>> residual_encoder((1, 28, 28), outputs=4)(torch.rand(5, 784)).shape
    torch.Size([5, 4])
    """
    channels, height, width = check_shape(shape, least=8)
    widths = (channels, 4, 8, 16, 32)
    layers = [_normalised(a, b, stride=2) for a, b in itertools.pairwise(widths)]
    return Flat(
        *layers,
        nn.Flatten(),
        Linear(32 * halved(height, 4) * halved(width, 4), outputs),
        shape=shape,
    )


def residual_decoder(latent: int, shape: Shape, outputs: int | None = None) -> Flat:
    """A dense layer to a small image of 8 channels, bilinear upsampling, then residual blocks.

    The small image has a quarter of the height and width. The blocks go from 8 channels to 32, 16
    and 8. Shapes, ``outputs`` and errors are those of :func:`conv_decoder`, but images must be at
    least 8 x 8.

    Source of the blocks: He et al., *Deep Residual Learning for Image Recognition*, 2015.
    """
    _, height, width = check_shape(shape, least=8)
    small = (8, halved(height, 2), halved(width, 2))
    return Flat(
        Linear(latent, math.prod(small), bias=False),
        nn.Unflatten(1, small),
        nn.BatchNorm2d(8),
        nn.LeakyReLU(),
        nn.Upsample((height, width), mode="bilinear"),
        ResidualBlock(8, 32),
        ResidualBlock(32, 16),
        _normalised(16, 8),
        nn.Conv2d(8, channels_for(shape, outputs), 3, padding=1),
        shape=(latent,),
    )


class ResidualBlock(nn.Module):
    """h -> LeakyReLU(skip(h) + F(h)) with two convolutions in F and a 1 x 1 convolution as skip.

    (B, channels_in, H, W) -> (B, channels_out, H, W).
    """

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.skip = nn.Conv2d(channels_in, channels_out, 1, bias=False)
        self.residual = nn.Sequential(
            _normalised(channels_in, channels_out),
            nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels_out),
        )
        self.activation = nn.LeakyReLU()

    def forward(self, h: Tensor) -> Tensor:
        output: Tensor = self.activation(self.skip(h) + self.residual(h))
        return output


def _normalised(channels_in: int, channels_out: int, stride: int = 1) -> nn.Sequential:
    """Convolution without a bias (it would cancel), batch normalisation and leaky ReLU."""
    conv = nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(channels_out), nn.LeakyReLU())
