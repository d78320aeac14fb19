"""Counts without an upper limit: the negative binomial, also with extra zeros."""

import math
from typing import ClassVar

import pyro.distributions as dist
import torch
import torch.nn.functional as F
from pyro.distributions import constraints
from torch import Tensor, nn

from .conditional import Conditional, at_least_one
from .elementwise import Elementwise
from .events import Events


class NegativeBinomial(Conditional):
    """Counts with mean mu = exp(net(h)) and variance mu + mu^2 / theta.

    theta is a learned parameter that starts at ``theta``. With ``dim`` there is one theta for each
    of ``dim`` elements (of the first event dimension); without it, one for all. With ``library``
    the last parent is the library size l (..., 1), a positive number, and mu = l softmax(net(h)),
    where the softmax is over the elements and gives their expected shares.

    Source: Lopez et al., *Deep generative modeling for single-cell transcriptomics*, 2018.

    Raises ``ValueError`` for a theta that is not positive, a ``dim`` below 1, and with ``library``
    for fewer than two parents.

    >>> p = NegativeBinomial.over(lambda outputs: nn.Linear(2, outputs), 3, library=True)
    >>> p(torch.randn(5, 2), torch.full((5, 1), 100.0)).mean.sum(-1).round()
    tensor([100., 100., 100., 100., 100.], grad_fn=<RoundBackward0>)
    """

    layout = "log mean"
    pixels = frozenset({"counts", "8bit"})

    def __init__(
        self,
        net: nn.Module,
        dim: int | None = None,
        theta: float = 1.0,
        library: bool = False,
        event_dim: int = 1,
    ) -> None:
        super().__init__(net, event_dim)
        if not 0 < theta < math.inf:
            raise ValueError(f"expected a positive, finite theta, got {theta}")
        shape = () if dim is None else (at_least_one(dim=dim), *[1] * (event_dim - 1))
        self.log_theta = nn.Parameter(torch.full(shape, math.log(theta)))
        self.library = library

    def forward(self, *parents: Tensor) -> dist.Distribution:
        h, size = self._split(parents)
        log_mean = self._log_mean(self.parameter(*h), size)
        return Events(NegativeBinomialDistribution(log_mean, self.log_theta), self.event_dim)

    def _split(self, parents: tuple[Tensor, ...]) -> tuple[tuple[Tensor, ...], Tensor | None]:
        """The parents that go to the network, and the library size."""
        if not self.library:
            return parents, None
        if len(parents) < 2:
            raise ValueError(f"expected parents and the library size, got {len(parents)} parent")
        return parents[:-1], parents[-1]

    def _log_mean(self, output: Tensor, size: Tensor | None) -> Tensor:
        return output if size is None else output.log_softmax(-self.event_dim) + size.log()


class ZeroInflatedNegativeBinomial(NegativeBinomial):
    """A negative binomial that is replaced by 0 with probability sigmoid(gate).

    (log mean, gate) = net(h); everything else is as in :class:`NegativeBinomial`.

    >>> p = ZeroInflatedNegativeBinomial.over(lambda outputs: nn.Linear(2, outputs), 3)
    >>> p.num_outputs
    6
    """

    layout = "log mean, gate"

    @staticmethod
    def outputs(dim: int) -> int:
        return 2 * dim

    def forward(self, *parents: Tensor) -> dist.Distribution:
        h, size = self._split(parents)
        output, gate = self.parameter_pair(*h)
        log_mean = self._log_mean(output, size)
        distribution = ZeroInflatedDistribution(log_mean, self.log_theta, gate)
        return Events(distribution, self.event_dim)


class NegativeBinomialDistribution(Elementwise):
    """Counts x = 0, 1, ... with mean mu and variance mu + mu^2 / theta.

    log p(x) = log(Gamma(x + theta) / (Gamma(theta) x!))
             + theta log(theta / (theta + mu)) + x log(mu / (theta + mu))

    >>> d = NegativeBinomialDistribution(torch.tensor(0.0), torch.tensor(0.0))
    >>> d.log_prob(torch.tensor([0.0, 1.0, 2.0])).exp()  # theta = mu = 1: geometric
    tensor([0.5000, 0.2500, 0.1250])
    """

    arg_constraints: ClassVar = {"log_mean": constraints.real, "log_theta": constraints.real}
    support = constraints.nonnegative_integer
    log_mean: Tensor
    log_theta: Tensor

    def __init__(
        self, log_mean: Tensor, log_theta: Tensor, validate_args: bool | None = None
    ) -> None:
        super().__init__(validate_args, log_mean=log_mean, log_theta=log_theta)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        return self._log_counts(value.to(self.log_mean.dtype))

    def sample(self, sample_shape: torch.Size | tuple[int, ...] = ()) -> Tensor:
        with torch.no_grad():
            shape = self._extended_shape(sample_shape)
            theta = self.log_theta.exp().expand(shape)
            return torch.poisson(torch._standard_gamma(theta) * (self.mean_of_counts / theta))

    @property
    def mean(self) -> Tensor:
        return self.mean_of_counts

    @property
    def mean_of_counts(self) -> Tensor:
        """The mean mu of the negative binomial, before zeros are added."""
        return self.log_mean.exp()

    def _log_counts(self, value: Tensor) -> Tensor:
        theta = self.log_theta.exp()
        logit = self.log_mean - self.log_theta
        log_ways = torch.lgamma(value + theta) - torch.lgamma(theta) - torch.lgamma(value + 1)
        return log_ways + theta * F.logsigmoid(-logit) + value * F.logsigmoid(logit)


class ZeroInflatedDistribution(NegativeBinomialDistribution):
    """0 with probability sigmoid(gate), otherwise a negative binomial count.

    >>> d = ZeroInflatedDistribution(torch.tensor(0.0), torch.tensor(0.0), torch.tensor(0.0))
    >>> d.log_prob(torch.tensor([0.0, 1.0])).exp()
    tensor([0.7500, 0.1250])
    """

    arg_constraints: ClassVar = {
        **NegativeBinomialDistribution.arg_constraints,
        "gate": constraints.real,
    }
    gate: Tensor

    def __init__(
        self,
        log_mean: Tensor,
        log_theta: Tensor,
        gate: Tensor,
        validate_args: bool | None = None,
    ) -> None:
        Elementwise.__init__(self, validate_args, log_mean=log_mean, log_theta=log_theta, gate=gate)

    def log_prob(self, value: Tensor) -> Tensor:
        log_kept = F.logsigmoid(-self.gate) + super().log_prob(value)
        return torch.where(value == 0, torch.logaddexp(F.logsigmoid(self.gate), log_kept), log_kept)

    def sample(self, sample_shape: torch.Size | tuple[int, ...] = ()) -> Tensor:
        counts = super().sample(sample_shape)
        return counts * (self._uniform(sample_shape, counts) >= self.gate.sigmoid())

    @property
    def mean(self) -> Tensor:
        return torch.sigmoid(-self.gate) * self.mean_of_counts
