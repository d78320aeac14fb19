"""Convolutional networks."""

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .dense import Flat
from .linear import Linear

Shape = tuple[int, int, int]
"""Channels, height and width of an image."""

FEW = 2
"""The most output channels for which one matrix product is faster than a convolution."""


class ConvTranspose2d(nn.ConvTranspose2d):
    """``nn.ConvTranspose2d`` that is up to four times as fast on the CPU.

    oneDNN convolves images whose channels are innermost without copies, but computes 16 channels
    where one or two are asked for. Where no gradients are recorded, such a layer of stride 1 is
    one matrix product, (kernel * out, in) by (in, pixels), and a sum of shifted images. The
    backward pass of the shifts would cost more than the product saves.

    >>> ConvTranspose2d(32, 1, 3, padding=1)(torch.zeros(5, 32, 8, 8)).shape
    torch.Size([5, 1, 8, 8])
    """

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        if input.device.type != "cpu" or input.ndim != 4:
            return super().forward(input, output_size)
        if output_size is None and self._few and not torch.is_grad_enabled():
            return self._by_product(input)
        inner = input.contiguous(memory_format=torch.channels_last)
        return super().forward(inner, output_size)

    @property
    def _few(self) -> bool:
        """Whether the layer has few outputs, and each input pixel only shifts to its outputs."""
        ones = {*self.stride, *self.dilation, self.groups}
        return self.out_channels <= FEW and ones == {1}

    def _by_product(self, input: Tensor) -> Tensor:
        """out[y, x] = sum_uv W_uv input[y + p - u, x + q - v], with padding (p, q)."""
        number, channels, height, width = input.shape
        down, right = self.kernel_size
        p, q = cast(tuple[int, int], self.padding)  # a str is refused by torch's constructor
        pixels = input.permute(0, 2, 3, 1).reshape(-1, channels)
        terms = self.weight.flatten(1).t() @ pixels.t()
        terms = terms.view(self.out_channels, down, right, number, height, width)
        out = terms.new_zeros(1) if self.bias is None else self.bias.view(-1, 1, 1, 1)
        for u in range(down):
            for v in range(right):
                shift = (v - q, right - 1 - v - q, u - p, down - 1 - u - p)
                out = out + F.pad(terms[:, u, v], shift)
        return out.movedim(0, 1)


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
        nn.ReLU(inplace=True),
        _doubling(64, 32, height, width),
        nn.ReLU(inplace=True),
        ConvTranspose2d(32, channels_for(shape, outputs), 3, padding=1),
        shape=(latent,),
    )


def _doubling(channels_in: int, channels_out: int, height: int, width: int) -> ConvTranspose2d:
    """A transposed convolution from an image of half the side, rounded up, to (height, width)."""
    padding = (1 - height % 2, 1 - width % 2)
    return ConvTranspose2d(
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
