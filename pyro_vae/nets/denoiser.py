"""Networks that remove noise of a known level."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .linear import Linear


class Denoiser(nn.Module):
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

    waves: Tensor

    def __init__(self, body: nn.Module, frequencies: int = 16) -> None:
        super().__init__()
        self.body = body
        periods = torch.logspace(math.log10(0.5), math.log10(60.0), frequencies)
        self.register_buffer("waves", 2 * math.pi / periods)

    def forward(self, h: Tensor) -> Tensor:
        z, log_snr = h[..., :-1], h[..., -1:]
        angles = log_snr * self.waves
        v, g = self.body(torch.cat([z, angles.sin(), angles.cos()], -1)).chunk(2, -1)
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
