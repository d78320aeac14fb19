"""Networks. Every one maps ``(..., in)`` to ``(..., out)``, whatever the leading dimensions.

Images travel as flat vectors ``(..., C * H * W)``; the networks that need their ``shape`` (C, H, W) are told it. A network
knows nothing of distributions: ask the family how many ``outputs`` it wants.

>>> from pyro_vae import DiagonalNormal
>>> encoder = DiagonalNormal(conv_encoder((1, 28, 28), outputs=DiagonalNormal.outputs(2)))
>>> encoder(torch.rand(5, 3, 784)).sample().shape
torch.Size([5, 3, 2])
"""

import itertools
import math

import torch
from torch import Tensor, nn

from .products import Linear

Shape = tuple[int, int, int]
"""Channels, height and width of an image."""


class Flat(nn.Sequential):
    """Layers that see one batch of inputs of a fixed ``shape``, for flat inputs with any leading dimensions.

    (..., prod(shape)) -> (N, *shape) -> layers -> (N, ...) -> (..., out)

    Raises ``ValueError`` for an input of another size.

    >>> Flat(nn.Conv2d(1, 4, 3), shape=(1, 8, 8))(torch.zeros(2, 3, 64)).shape
    torch.Size([2, 3, 144])
    """

    def __init__(self, *layers: nn.Module, shape: tuple[int, ...]) -> None:
        super().__init__(*layers)
        self.shape = shape
        self.size = math.prod(shape)

    def forward(self, input: Tensor) -> Tensor:
        if input.shape[-1] != self.size:
            raise ValueError(f"expected input (..., {self.size}), got {tuple(input.shape)}")
        output = input.reshape(-1, *self.shape)
        for layer in self:
            output = layer(output)
        output = output.flatten(1)
        return output.reshape(*input.shape[:-1], output.shape[-1])


def mlp(*sizes: int, activation: type[nn.Module] = nn.ReLU) -> Flat:
    """A multilayer perceptron: ``mlp(784, 400, 40)`` has one hidden layer of 400 units.

    Raises ``ValueError`` for fewer than two sizes, or one below 1.
    """
    if len(sizes) < 2 or min(sizes) < 1:
        raise ValueError(f"expected at least two positive sizes, got {sizes}")
    layers: list[nn.Module] = []
    for size_in, size_out in itertools.pairwise(sizes):
        layers += [Linear(size_in, size_out), activation()]
    return Flat(*layers[:-1], shape=sizes[:1])


def conv_encoder(shape: Shape, outputs: int) -> Flat:
    """A small convolutional encoder: C-32-64 channels, each convolution halving the image, then 16 dense units.

    Raises ``ValueError`` for images below 4 x 4.
    """
    channels, height, width = _check(shape, least=4)
    return Flat(
        nn.Conv2d(channels, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        Linear(64 * _halved(height, 2) * _halved(width, 2), 16),
        nn.ReLU(),
        Linear(16, outputs),
        shape=shape,
    )


def conv_decoder(latent: int, shape: Shape, outputs: int | None = None) -> Flat:
    """The mirror of :func:`conv_encoder`: a dense 64-channel image of a quarter of the side, grown by transposed convolutions.

    ``outputs``, by default one per pixel, is a multiple of H * W: some channels for each position.

    Raises ``ValueError`` for images below 4 x 4, or other outputs.
    """
    _, height, width = _check(shape, least=4)
    small = (64, _halved(height, 2), _halved(width, 2))
    return Flat(
        Linear(latent, math.prod(small)),
        nn.ReLU(),
        nn.Unflatten(1, small),
        _doubling(64, 64, _halved(height, 1), _halved(width, 1)),
        nn.ReLU(),
        _doubling(64, 32, height, width),
        nn.ReLU(),
        nn.ConvTranspose2d(32, _channels(shape, outputs), 3, padding=1),
        shape=(latent,),
    )


def residual_encoder(shape: Shape, outputs: int) -> Flat:
    """Four convolutions of [4, 8, 16, 32] channels, each halving the image, with batch normalisation and leaky ReLUs.

    Raises ``ValueError`` for images below 8 x 8.
    """
    channels, height, width = _check(shape, least=8)
    widths = (channels, 4, 8, 16, 32)
    layers = [_normalised(a, b, stride=2) for a, b in itertools.pairwise(widths)]
    return Flat(*layers, nn.Flatten(), Linear(32 * _halved(height, 4) * _halved(width, 4), outputs), shape=shape)


def residual_decoder(latent: int, shape: Shape, outputs: int | None = None) -> Flat:
    """A dense 8-channel image of a quarter of the side, upsampled bilinearly, then residual blocks of [8, 32, 16, 8] channels.

    ``outputs`` and errors are those of :func:`conv_decoder`, for images of at least 8 x 8.

    Source of the blocks: He et al., *Deep Residual Learning for Image Recognition*, 2015.
    """
    _, height, width = _check(shape, least=8)
    small = (8, _halved(height, 2), _halved(width, 2))
    return Flat(
        Linear(latent, math.prod(small), bias=False),
        nn.Unflatten(1, small),
        nn.BatchNorm2d(8),
        nn.LeakyReLU(),
        nn.Upsample((height, width), mode="bilinear"),
        ResidualBlock(8, 32),
        ResidualBlock(32, 16),
        _normalised(16, 8),
        nn.Conv2d(8, _channels(shape, outputs), 3, padding=1),
        shape=(latent,),
    )


class ResidualBlock(nn.Module):
    """h -> LeakyReLU(skip(h) + F(h)), with two normalised convolutions in F; the skip is a 1 x 1 convolution."""

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


class BFloat16(nn.Module):
    """A network that computes in bfloat16 and answers in float32, so that densities never see half precision.

    Weights, gradients and the optimiser stay in float32; matrix products and convolutions read rounded copies.

    >>> BFloat16(mlp(4, 8, 2))(torch.ones(3, 4)).dtype
    torch.float32
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, input: Tensor) -> Tensor:
        with torch.autocast(input.device.type, torch.bfloat16, cache_enabled=False):
            output: Tensor = self.net(input)
        return output.float()


@torch.no_grad()
def set_output_bias(net: nn.Module, bias: Tensor) -> None:
    """Start a network from ``bias``, of shape (out,): the bias of the linear layer it ends in.

    A Bernoulli decoder learns sooner from the logits of the mean image (Burda, Grosse & Salakhutdinov 2015).

    Raises ``TypeError`` where the last layer is not an ``nn.Linear`` with a bias, ``ValueError`` where the size differs.

    >>> net, x = mlp(2, 16, 64), torch.rand(100, 64).round()
    >>> set_output_bias(net, x.mean(0).clamp(0.001, 0.999).logit())
    """
    *_, last = net.modules()
    if not isinstance(last, nn.Linear) or last.bias is None:
        raise TypeError(f"expected a network that ends in nn.Linear with a bias, got {type(last).__name__}")
    if bias.shape != last.bias.shape:
        raise ValueError(f"expected a bias of shape {tuple(last.bias.shape)}, got {tuple(bias.shape)}")
    last.bias.copy_(bias)


def _normalised(channels_in: int, channels_out: int, stride: int = 1) -> nn.Sequential:
    """Convolution (without the bias that the normalisation would remove), batch normalisation, leaky ReLU."""
    conv = nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(channels_out), nn.LeakyReLU())


def _doubling(channels_in: int, channels_out: int, height: int, width: int) -> nn.ConvTranspose2d:
    """A transposed convolution from an image of half the side, rounded up, to (height, width)."""
    padding = (1 - height % 2, 1 - width % 2)
    return nn.ConvTranspose2d(channels_in, channels_out, 3, stride=2, padding=1, output_padding=padding)


def _halved(side: int, times: int) -> int:
    """The side of an image after some convolutions of stride 2, which round up."""
    return math.ceil(side / (1 << times))


def _check(shape: Shape, least: int) -> Shape:
    if len(shape) != 3 or shape[0] < 1 or min(shape[1:]) < least:
        raise ValueError(f"expected an image shape (C, H, W) of at least {least} x {least} pixels, got {shape}")
    return shape


def _channels(shape: Shape, outputs: int | None) -> int:
    """How many channels give ``outputs`` numbers over an image's positions."""
    if outputs is None:
        return shape[0]
    channels, rest = divmod(outputs, shape[1] * shape[2])
    if rest or channels < 1:
        raise ValueError(f"expected outputs in multiples of {shape[1]} x {shape[2]}, got {outputs}")
    return channels
