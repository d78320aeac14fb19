"""Binary values, and reals in [0, 1]: Bernoulli and continuous Bernoulli."""

from typing import Any, ClassVar

import pyro.distributions as dist
import torch
import torch.nn.functional as F
from pyro.distributions import constraints
from torch import Tensor

from .conditional import BINARY, Conditional
from .elementwise import Elementwise, unexpanded


class Bernoulli(Conditional):
    """Bernoulli(sigmoid(logits)), with logits = net(h), on binary values x (..., D)."""

    layout = "logits"
    pixels = BINARY

    def forward(self, *parents: Tensor) -> dist.Distribution:
        return BernoulliDistribution(logits=self.parameter(*parents)).to_event(self.event_dim)


class ContinuousBernoulli(Conditional):
    """p(x) proportional to exp(x logits) for x in [0, 1], (..., D), with logits = net(h).

    Source: Loaiza-Ganem & Cunningham, *The continuous Bernoulli*, 2019.
    """

    layout = "logits"
    pixels = frozenset({"grey"})

    def forward(self, *parents: Tensor) -> dist.Distribution:
        return ContinuousBernoulliDistribution(self.parameter(*parents)).to_event(self.event_dim)


class BernoulliDistribution(dist.Bernoulli):
    """Bernoulli(sigmoid(logits)), with a density computed from the logits alone.

    log p(x) = x logits - softplus(logits), the negative cross-entropy

    >>> d = BernoulliDistribution(logits=torch.tensor(1000.0))
    >>> d.log_prob(torch.tensor([0.0, 1.0])).tolist()
    [-1000.0, -0.0]
    """

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        value = value.to(self.logits.dtype)
        logits, values = torch.broadcast_tensors(self.logits, value)
        if not torch.is_grad_enabled():  # the same value with one temporary tensor, not four
            return F.logsigmoid(logits).addcmul_(unexpanded(value) - 1, logits)
        return F.binary_cross_entropy_with_logits(logits, values, reduction="none").neg()


class ContinuousBernoulliDistribution(Elementwise):
    """The continuous Bernoulli on [0, 1], for logits of any size.

    log p(x) = x logits - log((exp(logits) - 1) / logits)

    In float32 torch's own distribution is wrong where |logits| > 16.

    Source: Loaiza-Ganem & Cunningham, *The continuous Bernoulli*, 2019.

    >>> ContinuousBernoulliDistribution(torch.tensor(0.0)).log_prob(torch.tensor(0.3))
    tensor(0.)
    """

    arg_constraints: ClassVar = {"logits": constraints.real}
    support = constraints.unit_interval
    logits: Tensor

    def __init__(self, logits: Tensor, validate_args: bool | None = None) -> None:
        super().__init__(validate_args, logits=logits)

    def _near_zero(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return where |logits| < 0.1, the logits for the power series, and for the formulas.

        The power series is used near zero, where the formulas are 0 / 0. In each of the two
        results the entries that are not used are replaced by a safe value.
        """
        near = self.logits.abs() < 0.1
        return near, torch.where(near, self.logits, 0.0), torch.where(near, 1.0, self.logits)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        near, t, u = self._near_zero()
        tt = t * t
        series = t / 2 + tt * (1 / 24 - tt * (1 / 2880 - tt / 181440))
        log_normaliser = u.relu() + torch.log(-torch.expm1(-u.abs()) / u.abs())
        return value * self.logits - torch.where(near, series, log_normaliser)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        with torch.no_grad():
            # the inverse of F(x) = (1 - exp(-s x)) / (1 - exp(-s)), s = |logits|: its density
            # falls with x, so x becomes 1 - x for positive logits
            s = self.logits.abs().clamp(min=1e-30)
            x = -torch.log1p(self._uniform(sample_shape, s) * torch.expm1(-s)) / s
            return torch.where(self.logits < 0, x, 1 - x)

    @property
    def mean(self) -> Tensor:
        near, t, u = self._near_zero()
        tt = t * t
        series = 0.5 + t * (1 / 12 - tt * (1 / 720 - tt / 30240))
        return torch.where(near, series, -1 / torch.expm1(-u) - 1 / u)
