"""Latents on the unit sphere S^(D-1) of R^D: the uniform prior and the base of the posteriors.

A draw is z = t mu + sqrt(1 - t^2) v, with t = mu'z and v uniform among the unit vectors orthogonal
to the mean mu. When mu changes, v changes by parallel transport. So the gradient needs no reference
direction and has no singular point.
"""

import copy
import math
from typing import Any, ClassVar, Self

import pyro.distributions as dist
import torch
import torch.nn.functional as F
from pyro.distributions import constraints
from torch import Tensor, nn

from .conditional import Conditional


class UniformSphere(nn.Module):
    """The uniform distribution on the unit sphere of R^``dim``; z is (``dim``,).

    Raises ``ValueError`` for a ``dim`` below 2.

    >>> UniformSphere(3)().sample((5,)).norm(dim=-1).round(decimals=3)
    tensor([1., 1., 1., 1., 1.])
    """

    loc: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("loc", torch.zeros(_at_least_two(dim)))

    def forward(self) -> dist.Distribution:
        return Uniform(self.loc)


class Spherical(Conditional):
    """The base class of families with (mu before normalisation, kappa before softplus) = net(h).

    mu is the direction of the mean, and kappa is the concentration.
    """

    layout = "mu before normalisation, kappa before softplus"

    @staticmethod
    def outputs(dim: int) -> int:
        return _at_least_two(dim) + 1

    def mean_and_concentration(self, *parents: Tensor) -> tuple[Tensor, Tensor]:
        """(mu, kappa) of the distribution given the parents; kappa is at least 0.01."""
        output = self.parameter(*parents)
        _at_least_two(output.shape[-1] - 1)
        return F.normalize(output[..., :-1], dim=-1), F.softplus(output[..., -1]) + 0.01


class Uniform(dist.TorchDistribution):
    """Uniform on the unit sphere of R^D.

    ``loc`` is a tensor of zeros (..., D). It sets the shape, precision and device.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    support = constraints.sphere

    def __init__(self, loc: Tensor) -> None:
        self.loc = loc
        super().__init__(loc.shape[:-1], loc.shape[-1:])

    def expand(self, batch_shape: Any, _instance: Any = None) -> Self:
        new = copy.copy(self)
        new.loc = self.loc.expand(*batch_shape, *self.event_shape)
        new._batch_shape = torch.Size(batch_shape)
        return new

    @property
    def mean(self) -> Tensor:
        return self.loc

    def sample(self, sample_shape: Any = ()) -> Tensor:
        shape = self._extended_shape(sample_shape)
        eps = torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device)
        return F.normalize(eps, dim=-1)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        return (self.loc * value).sum(-1) - log_area(self.event_shape[-1])


class AboutMean(dist.TorchDistribution):
    """A density on the sphere that depends only on t = mu'z; subclasses define how t is drawn."""

    arg_constraints: ClassVar[dict[str, Any]] = {}
    support = constraints.sphere
    has_rsample = True

    def __init__(self, direction: Tensor, concentration: Tensor) -> None:
        self.direction = direction
        self.concentration = concentration
        super().__init__(direction.shape[:-1], direction.shape[-1:])

    def expand(self, batch_shape: Any, _instance: Any = None) -> Self:
        new = copy.copy(self)
        new.direction = self.direction.expand(*batch_shape, *self.event_shape)
        new.concentration = self.concentration.expand(batch_shape)
        new._batch_shape = torch.Size(batch_shape)
        return new

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        shape = self._extended_shape(sample_shape)
        mu = self.direction
        t = self._cosine(shape[:-1]).unsqueeze(-1)
        with torch.no_grad():
            v = torch.randn(shape, dtype=mu.dtype, device=mu.device)
            v = F.normalize(v - (v * mu).sum(-1, keepdim=True) * mu, dim=-1)
        # the last term is zero: its gradient is the parallel transport
        v = v - (v * (mu - mu.detach())).sum(-1, keepdim=True) * mu.detach()
        sine = (1 - t.square()).clamp(min=torch.finfo(t.dtype).tiny).sqrt()
        return F.normalize(t * mu + sine * v, dim=-1)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        # t - 1 = -|mu - z|^2 / 2 on the sphere; computed as mu'z - 1 it is imprecise near mu
        less = -0.5 * (self.direction - value).square().sum(-1)
        return self._log_density(less) + self._log_normaliser()

    @property
    def mean(self) -> Tensor:
        return self._mean_cosine().unsqueeze(-1) * self.direction

    def _cosine(self, shape: torch.Size) -> Tensor:
        """Draw t, with a gradient."""
        raise NotImplementedError

    def _log_density(self, less: Tensor) -> Tensor:
        """The log density at t = 1 + ``less``, without its normaliser."""
        raise NotImplementedError

    def _log_normaliser(self) -> Tensor:
        """The term to add to ``_log_density`` to get the log density; it does not depend on t."""
        raise NotImplementedError

    def _mean_cosine(self) -> Tensor:
        """E[t]."""
        raise NotImplementedError


def kl_to_uniform(q: Any, p: Uniform) -> Tensor:
    """KL(q || uniform) = E_q[log q] + log(area of the sphere)."""
    kl: Tensor = q.mean_log_density() + log_area(p.event_shape[-1])
    return kl


def log_area(dim: int) -> float:
    """The log area of the unit sphere of R^dim: log(2 pi^(dim/2) / Gamma(dim/2))."""
    return math.log(2) + dim / 2 * math.log(math.pi) - math.lgamma(dim / 2)


def _at_least_two(dim: int) -> int:
    if dim < 2:
        raise ValueError(f"expected a sphere in at least 2 dimensions, got {dim}")
    return dim
