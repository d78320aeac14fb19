"""Conditional distributions: modules whose call returns a ``Distribution``.

``StandardNormal(2)()`` is p(z), ``Bernoulli(net)(z)`` is p(x | z), ``DiagonalNormal(net)(x)`` is q(z | x). They are named
after the family, not the role: one ``DiagonalNormal(net)`` serves as q(z | x) or as p(z1 | z2). The event dimensions live
in here, never in a program, and every leading dimension of the input is a batch dimension of the distribution.

``Family.outputs(dim)`` is the number of outputs that a network must have for a variable of ``dim`` dimensions.
``Family.pixels`` names the kinds of pixels that the family is a density of, so that a likelihood on other data is refused:
"static", "dynamic" and "threshold" (binary), "grey" (reals in [0, 1]), "counts" (0 to n) and "8bit" (0 to 255).
"""

import math
from typing import ClassVar

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from . import distributions

BINARY = frozenset({"static", "dynamic", "threshold"})


class StandardNormal(nn.Module):
    """N(0, I) on R^D."""

    loc: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        if dim < 1:
            raise ValueError(f"expected a dimension of at least 1, got {dim}")
        self.register_buffer("loc", torch.zeros(dim))
        self.register_buffer("scale", torch.ones(dim))

    def forward(self) -> dist.Distribution:
        return distributions.Normal(self.loc, self.scale).to_event(1)


class Conditional(nn.Module):
    """A family whose parameters are a network's outputs; the last ``event_dim`` dimensions are one event.

    Non-finite outputs of the network are not repaired: they reach the density, and validation.
    """

    pixels: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, net: nn.Module, event_dim: int = 1) -> None:
        super().__init__()
        if event_dim < 1:
            raise ValueError(f"expected event_dim of at least 1, got {event_dim}")
        self.net = net
        self.event_dim = event_dim

    @staticmethod
    def outputs(dim: int) -> int:
        """How many outputs the network must have for a variable of ``dim`` dimensions."""
        return dim

    def parameter(self, h: Tensor) -> Tensor:
        """The network's outputs; in float32 where it ran in half precision, for densities need more digits."""
        output: Tensor = self.net(h)
        return output.float() if output.dtype in (torch.bfloat16, torch.float16) else output

    def parameter_pair(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """The two halves of the network's outputs, along the first event dimension."""
        output = self.parameter(h)
        if output.shape[-self.event_dim] % 2:
            raise ValueError(
                f"expected an even number of outputs, got {tuple(output.shape)}: give the network {type(self).__name__}.outputs(dim)"
            )
        first, second = output.chunk(2, -self.event_dim)
        return first, second


class DiagonalNormal(Conditional):
    """N(loc, diag(scale^2)), with (loc, 2 log scale) = net(h); in float32 the scale is finite for |2 log scale| < 174."""

    @staticmethod
    def outputs(dim: int) -> int:
        return 2 * dim

    def forward(self, h: Tensor) -> dist.Distribution:
        loc, log_variance = self.parameter_pair(h)
        return distributions.Normal(loc, (0.5 * log_variance).exp()).to_event(self.event_dim)


class Bernoulli(Conditional):
    """Bernoulli(sigmoid(logits)), with logits = net(h), on binary values."""

    pixels = BINARY

    def forward(self, h: Tensor) -> dist.Distribution:
        return distributions.Bernoulli(logits=self.parameter(h)).to_event(self.event_dim)


class ContinuousBernoulli(Conditional):
    """p(x) proportional to exp(x logits) on [0, 1], with logits = net(h) (Loaiza-Ganem & Cunningham 2019)."""

    pixels = frozenset({"grey"})

    def forward(self, h: Tensor) -> dist.Distribution:
        return distributions.ContinuousBernoulli(self.parameter(h)).to_event(self.event_dim)


class Normal(Conditional):
    """N(loc, scale^2 I), with loc = net(h) and one ``scale`` for all dimensions, which is fixed or ``learned``."""

    pixels = frozenset({"grey"})
    log_scale: Tensor

    def __init__(self, net: nn.Module, scale: float = 1.0, learned: bool = False, event_dim: int = 1) -> None:
        super().__init__(net, event_dim)
        if not 0.0 < scale < math.inf:
            raise ValueError(f"expected a positive, finite scale, got {scale}")
        log_scale = torch.tensor(math.log(scale))
        if learned:
            self.log_scale = nn.Parameter(log_scale)
        else:
            self.register_buffer("log_scale", log_scale)

    def forward(self, h: Tensor) -> dist.Distribution:
        return dist.Normal(self.parameter(h), self.log_scale.exp()).to_event(self.event_dim)


class Binomial(Conditional):
    """Binomial(total_count, sigmoid(logits)), with logits = net(h), on counts from 0 to ``total_count``."""

    pixels = frozenset({"counts", "8bit"})

    def __init__(self, net: nn.Module, total_count: int, event_dim: int = 1) -> None:
        super().__init__(net, event_dim)
        if total_count < 1:
            raise ValueError(f"expected total_count of at least 1, got {total_count}")
        self.total_count = total_count

    def forward(self, h: Tensor) -> dist.Distribution:
        return distributions.Binomial(self.total_count, self.parameter(h)).to_event(self.event_dim)


class DiscretizedLogistic(Conditional):
    """A logistic density binned into 0, ..., 255, with (loc, log scale) = net(h), where the 256 values span [0, 1]."""

    pixels = frozenset({"8bit"})

    @staticmethod
    def outputs(dim: int) -> int:
        return 2 * dim

    def forward(self, h: Tensor) -> dist.Distribution:
        return distributions.DiscretizedLogistic(*self.parameter_pair(h)).to_event(self.event_dim)
