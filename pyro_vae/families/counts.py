"""Counts: the binomial family."""

import math
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
import torch.nn.functional as F
from pyro.distributions import constraints
from torch import Tensor, nn

from .conditional import Conditional, at_least_one
from .elementwise import Elementwise
from .events import Events


class Binomial(Conditional):
    """Binomial(total_count, sigmoid(logits)), logits = net(h), on counts from 0 to ``total_count``.

    Counts are (..., D).

    Raises ``ValueError`` for a ``total_count`` below 1.
    """

    layout = "logits"
    pixels = frozenset({"counts", "8bit"})

    def __init__(self, net: nn.Module, total_count: int, event_dim: int = 1) -> None:
        super().__init__(net, event_dim)
        self.total_count = at_least_one(total_count=total_count)

    def forward(self, *parents: Tensor) -> dist.Distribution:
        logits = self.parameter(*parents)
        return Events(BinomialDistribution(self.total_count, logits), self.event_dim)


class BinomialDistribution(Elementwise):
    """Binomial(total_count, sigmoid(logits)) with one ``total_count`` = n for all elements.

    log p(x) = x logits - n softplus(logits) + log(n! / (x! (n - x)!))

    The last term is computed once for each datum, not once for each particle. This makes it many
    times faster than torch's own distribution.

    >>> BinomialDistribution(2, torch.tensor(0.0)).log_prob(torch.tensor([0.0, 1.0, 2.0])).exp()
    tensor([0.2500, 0.5000, 0.2500])
    """

    arg_constraints: ClassVar = {"logits": constraints.real}
    logits: Tensor

    def __init__(self, total_count: int, logits: Tensor, validate_args: bool | None = None) -> None:
        self.total_count = total_count
        super().__init__(validate_args, logits=logits)

    @constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> Any:
        return constraints.integer_interval(0, self.total_count)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        value = value.to(self.logits.dtype)
        n = self.total_count
        log_ways = math.lgamma(n + 1) - torch.lgamma(value + 1) - torch.lgamma(n - value + 1)
        # in float64 softplus is the identity above 40; torch's default threshold 20 loses digits
        negative_log_normaliser = F.softplus(self.logits, threshold=40).mul_(-n)
        return torch.addcmul(negative_log_normaliser, value, self.logits) + log_ways

    def sample(self, sample_shape: Any = ()) -> Tensor:
        with torch.no_grad():
            probability = self.logits.sigmoid().expand(self._extended_shape(sample_shape))
            return torch.binomial(torch.full_like(probability, self.total_count), probability)

    @property
    def mean(self) -> Tensor:
        return self.total_count * self.logits.sigmoid()
