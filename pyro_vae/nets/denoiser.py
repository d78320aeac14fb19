"""Networks that remove noise of a known level."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .conv import Shape, channels_for, check_shape
from .linear import Linear


class WithNoiseLevel(nn.Module):
    """(z, log SNR) -> body(z, waves): the level of noise as sines and cosines of log SNR.

    (..., D + 1) -> the body's outputs; the body's inputs are (..., D + 2 ``frequencies``). The
    periods go from 0.5 to 60.

    >>> WithNoiseLevel(nn.Linear(64 + 16, 64), frequencies=8)(torch.zeros(3, 64 + 1)).shape
    torch.Size([3, 64])
    """

    waves: Tensor

    def __init__(self, body: nn.Module, frequencies: int = 16) -> None:
        super().__init__()
        self.body = body
        periods = torch.logspace(math.log10(0.5), math.log10(60.0), frequencies)
        self.register_buffer("waves", 2 * math.pi / periods)

    def forward(self, h: Tensor) -> Tensor:
        angles = h[..., -1:] * self.waves
        output: Tensor = self.body(torch.cat([h[..., :-1], angles.sin(), angles.cos()], -1))
        return output


class Denoiser(WithNoiseLevel):
    """(z, log SNR) -> (loc, 2 log scale) of x, where z = alpha x + sigma noise.

    alpha^2 = sigmoid(log SNR), sigma^2 = 1 - alpha^2. The ``body`` maps z and ``frequencies``
    sines and cosines of log SNR, (..., D + 2 frequencies), to (v, g), (..., 2 D). The size of v is
    about the same at every level of noise:

    loc = alpha z - sigma v,    2 log scale = 2 log sigma + g,    |g| < 8.

    Source: Salimans & Ho, *Progressive Distillation for Fast Sampling of Diffusion Models*, 2022.

    >>> net = Denoiser(nn.Linear(64 + 16, 2 * 64), frequencies=8)
    >>> net(torch.zeros(3, 64 + 1)).shape
    torch.Size([3, 128])
    """

    def forward(self, h: Tensor) -> Tensor:
        v, g = super().forward(h).chunk(2, -1)
        z, log_snr = h[..., :-1], h[..., -1:]
        alpha, sigma = log_snr.sigmoid().sqrt(), (-log_snr).sigmoid().sqrt()
        log_variance = F.logsigmoid(-log_snr) + 8 * torch.tanh(g / 8)
        return torch.cat([alpha * z - sigma * v, log_variance], -1)


class ResidualMLP(nn.Module):
    """A linear layer, ``depth`` residual blocks of two layers, and a linear layer that starts at 0.

    (..., size_in) -> (..., size_out).

    >>> ResidualMLP(4, 16, 6)(torch.zeros(3, 4))[0]
    tensor([0., 0., 0., 0., 0., 0.], grad_fn=<SelectBackward0>)
    """

    def __init__(self, size_in: int, hidden: int, size_out: int, depth: int = 3) -> None:
        super().__init__()
        self.first = Linear(size_in, hidden)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(hidden), Linear(hidden, hidden), nn.SiLU(), Linear(hidden, hidden)
            )
            for _ in range(depth)
        )
        self.last = Linear(hidden, size_out)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, h: Tensor) -> Tensor:
        h = self.first(h)
        for block in self.blocks:
            h = h + block(h)
        output: Tensor = self.last(F.silu(h))
        return output


class UNet(nn.Module):
    """Residual convolutions at half and at a quarter of the resolution, for images with conditions.

    (..., C H W + ``conditions``) -> (..., outputs). Squares of 2 x 2 pixels are the channels of the
    half; the quarter has twice as many ``channels``. Every block adds a linear function of the
    conditions, and the parameter ``position`` tells places apart. The last layer starts at 0.

    Source: Ho, Jain & Abbeel, *Denoising Diffusion Probabilistic Models*, 2020.

    Raises ``ValueError`` where height or width is no multiple of 4, or ``outputs`` no multiple of
    H W.

    >>> UNet((1, 8, 8), conditions=16, channels=8)(torch.zeros(3, 64 + 16)).shape
    torch.Size([3, 64])
    """

    def __init__(
        self,
        shape: Shape,
        conditions: int,
        outputs: int | None = None,
        channels: int = 64,
        depth: int = 2,
    ) -> None:
        super().__init__()
        colours, height, width = check_shape(shape, least=4)
        if height % 4 or width % 4:
            raise ValueError(f"expected height and width in multiples of 4, got {shape}")
        self.shape = shape
        self.conditions = conditions
        self.embed = Linear(conditions, 4 * channels)
        self.first = same_conv(4 * colours, channels)
        self.position = nn.Parameter(torch.zeros(channels, height // 2, width // 2))
        self.fine = blocks(channels, 4 * channels, depth)
        self.down = nn.Conv2d(channels, 2 * channels, 2, stride=2)
        self.coarse = blocks(2 * channels, 4 * channels, 2 * depth)
        self.up = nn.ConvTranspose2d(2 * channels, channels, 2, stride=2)
        self.fine_again = blocks(channels, 4 * channels, depth)
        self.last = same_conv(channels, 4 * channels_for(shape, outputs))
        for parameter in self.last.parameters():
            nn.init.zeros_(parameter)

    def forward(self, h: Tensor) -> Tensor:
        image, conditions = h.reshape(-1, h.shape[-1]).split(
            [h.shape[-1] - self.conditions, self.conditions], -1
        )
        c = F.silu(self.embed(conditions))
        z = F.pixel_unshuffle(image.view(-1, *self.shape), 2)
        z = self.first(z.contiguous(memory_format=torch.channels_last)) + self.position
        for block in self.fine:
            z = block(z, c)
        small = self.down(z)
        for block in self.coarse:
            small = block(small, c)
        z = z + self.up(small)
        for block in self.fine_again:
            z = block(z, c)
        output = F.pixel_shuffle(self.last(F.silu(z)), 2).flatten(1)
        return output.reshape(*h.shape[:-1], -1)


class ConditionalBlock(nn.Module):
    """z -> z + conv(silu(conv(silu(z)) + linear(c))); the last convolution starts at 0."""

    def __init__(self, channels: int, conditions: int) -> None:
        super().__init__()
        self.conv1 = same_conv(channels, channels)
        self.condition = Linear(conditions, channels)
        self.conv2 = same_conv(channels, channels)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, z: Tensor, c: Tensor) -> Tensor:
        h = self.conv1(F.silu(z)) + self.condition(c)[..., None, None]
        output: Tensor = z + self.conv2(F.silu(h))
        return output


def same_conv(channels_in: int, channels_out: int) -> nn.Conv2d:
    """A 3 x 3 convolution that keeps the size."""
    return nn.Conv2d(channels_in, channels_out, 3, padding=1)


def blocks(channels: int, conditions: int, depth: int) -> nn.ModuleList:
    """Residual blocks of the same width."""
    return nn.ModuleList(ConditionalBlock(channels, conditions) for _ in range(depth))
