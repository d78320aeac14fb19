"""Conditional distributions: modules whose call returns a ``Distribution``.

``StandardNormal(2)()`` is p(z), ``Bernoulli(net)(z)`` is p(x | z), ``DiagonalNormal(net)(x)`` is q(z | x). They are named
after the family, not the role: one ``DiagonalNormal(net)`` serves as q(z | x) or as p(z1 | z2). The event dimensions live
in here, never in a program, and every leading dimension of the input is a batch dimension of the distribution.
"""

import pyro.distributions as dist
import torch
from torch import Tensor, nn


class StandardNormal(nn.Module):
    """N(0, I) on R^D."""

    loc: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("loc", torch.zeros(dim))
        self.register_buffer("scale", torch.ones(dim))

    def forward(self) -> dist.Distribution:
        return dist.Normal(self.loc, self.scale).to_event(1)


class DiagonalNormal(nn.Module):
    """N(loc, diag(scale^2)), with (loc, 2 log scale) = net(h)."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, h: Tensor) -> dist.Distribution:
        loc, log_variance = self.net(h).chunk(2, -1)
        return dist.Normal(loc, (0.5 * log_variance).exp()).to_event(1)


class Bernoulli(nn.Module):
    def __init__(self, net: nn.Module, event_dim: int = 1) -> None:
        super().__init__()
        self.net = net
        self.event_dim = event_dim

    def forward(self, h: Tensor) -> dist.Distribution:
        return dist.Bernoulli(logits=self.net(h)).to_event(self.event_dim)
