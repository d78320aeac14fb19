"""Latents on the unit sphere S^(D-1) of R^D: the uniform prior, Power Spherical and von Mises-Fisher posteriors.

A draw is z = t mu + sqrt(1 - t^2) v with t = mu'z, and v uniform among the unit vectors orthogonal to the mean mu. When mu
moves, v is carried along parallel to itself: its gradient needs no reference direction and has no singular point.
"""

import copy
import math
from typing import Any, ClassVar, Self, cast

import numpy as np
import pyro.distributions as dist
import torch
import torch.nn.functional as F
from pyro.distributions import constraints
from torch import Tensor, nn
from torch.distributions.kl import register_kl

from .bessel import bessel_ratio, log_bessel
from .conditional import Conditional


class UniformSphere(nn.Module):
    """The uniform distribution on the unit sphere of R^``dim``.

    >>> UniformSphere(3)().sample((5,)).norm(dim=-1).round(decimals=3)
    tensor([1., 1., 1., 1., 1.])
    """

    loc: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("loc", torch.zeros(_at_least_two(dim)))

    def forward(self) -> dist.Distribution:
        return Uniform(self.loc)


class _Spherical(Conditional):
    """(direction of the mean, concentration before softplus) = net(h)."""

    @staticmethod
    def outputs(dim: int) -> int:
        return dim + 1

    def _mean_and_concentration(self, h: Tensor) -> tuple[Tensor, Tensor]:
        output = self.parameter(h)
        _at_least_two(output.shape[-1] - 1)
        return F.normalize(output[..., :-1], dim=-1), F.softplus(output[..., -1]) + 0.01


class PowerSpherical(_Spherical):
    """p(z) proportional to (1 + mu'z)^kappa, with (mu before normalisation, kappa before softplus) = net(h); it compiles.

    Source: De Cao & Aziz, *The Power Spherical Distribution*, 2020.

    >>> PowerSpherical(nn.Linear(8, PowerSpherical.outputs(3)))(torch.ones(5, 8)).sample().shape
    torch.Size([5, 3])
    """

    def forward(self, h: Tensor) -> dist.Distribution:
        return PowerSphericalDistribution(*self._mean_and_concentration(h))


class VonMisesFisher(_Spherical):
    """p(z) proportional to exp(kappa mu'z), with (mu before normalisation, kappa before softplus) = net(h).

    Source: Davidson et al., *Hyperspherical Variational Auto-Encoders*, 2018.

    >>> VonMisesFisher(nn.Linear(8, VonMisesFisher.outputs(3)))(torch.ones(5, 8)).sample().shape
    torch.Size([5, 3])
    """

    def forward(self, h: Tensor) -> dist.Distribution:
        return VonMisesFisherDistribution(*self._mean_and_concentration(h))


class Uniform(dist.TorchDistribution):  # type: ignore[misc]
    """Uniform on the unit sphere of R^D; ``loc`` (..., D), all zeros, gives shape, precision and device."""

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
        return F.normalize(
            torch.randn(
                self._extended_shape(sample_shape), dtype=self.loc.dtype, device=self.loc.device
            ),
            dim=-1,
        )

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        return (self.loc * value).sum(-1) - log_area(self.event_shape[-1])


class _AboutMean(dist.TorchDistribution):  # type: ignore[misc]
    """A density on the sphere that depends on t = mu'z alone; children know t."""

    arg_constraints: ClassVar[dict[str, Any]] = {}
    support = constraints.sphere
    has_rsample = True

    def __init__(self, direction: Tensor, concentration: Tensor) -> None:
        self.direction, self.concentration = direction, concentration
        super().__init__(direction.shape[:-1], direction.shape[-1:])

    def expand(self, batch_shape: Any, _instance: Any = None) -> Self:
        new = copy.copy(self)
        new.direction = self.direction.expand(*batch_shape, *self.event_shape)
        new.concentration = self.concentration.expand(batch_shape)
        new._batch_shape = torch.Size(batch_shape)
        return new

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        shape, mu = self._extended_shape(sample_shape), self.direction
        t = self._cosine(shape[:-1]).unsqueeze(-1)
        with torch.no_grad():
            v = torch.randn(shape, dtype=mu.dtype, device=mu.device)
            v = F.normalize(v - (v * mu).sum(-1, keepdim=True) * mu, dim=-1)
        v = (
            v - (v * (mu - mu.detach())).sum(-1, keepdim=True) * mu.detach()
        )  # zero: its gradient is the parallel transport
        return F.normalize(
            t * mu + (1 - t.square()).clamp(min=torch.finfo(t.dtype).tiny).sqrt() * v, dim=-1
        )

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        # t - 1 = -|mu - z|^2 / 2 on the sphere: near the mean mu'z - 1 would keep no digit in float32
        return (
            self._log_density(-0.5 * (self.direction - value).square().sum(-1))
            + self._log_normaliser()
        )

    @property
    def mean(self) -> Tensor:
        return self._mean_cosine().unsqueeze(-1) * self.direction

    def _cosine(self, shape: torch.Size) -> Tensor:
        """Draw t, with a gradient."""
        raise NotImplementedError

    def _log_density(self, less: Tensor) -> Tensor:
        """The log-density at t = 1 + ``less``, up to a constant."""
        raise NotImplementedError

    def _log_normaliser(self) -> Tensor:
        """That constant."""
        raise NotImplementedError

    def _mean_cosine(self) -> Tensor:
        """E[t]."""
        raise NotImplementedError


class PowerSphericalDistribution(_AboutMean):
    """(1 + mu'z)^kappa / Z: (1 + t) / 2 ~ Beta(a, b) with b = (D - 1)/2 and a = b + kappa.

    log Z = (a + b) log 2 + b log pi + log Gamma(a) - log Gamma(a + b)

    The density is computed as ((1 + t) / 2)^kappa over Z / 2^kappa, whose logarithm does not grow with kappa, in float64.
    """

    def _beta(self) -> tuple[Tensor, float]:
        b = (self.event_shape[-1] - 1) / 2
        return self.concentration + b, b

    def _cosine(self, shape: torch.Size) -> Tensor:
        a, b = self._beta()
        x, y = (
            torch._standard_gamma(a.expand(shape)),
            torch._standard_gamma(torch.full_like(a, b).expand(shape)),
        )
        return (x - y) / (x + y)

    def _log_density(self, less: Tensor) -> Tensor:
        return self.concentration * torch.log1p(
            (less / 2).clamp(min=torch.finfo(less.dtype).eps / 2 - 1)
        )

    def _log_normaliser(self) -> Tensor:
        a, b = self._beta()
        a = a.double()  # in float32 the two terms, of size kappa log kappa, would cancel all digits
        return (torch.lgamma(a + b) - torch.lgamma(a) - b * math.log(4 * math.pi)).to(
            self.concentration.dtype
        )

    def _mean_cosine(self) -> Tensor:
        a, b = self._beta()
        return (a - b) / (a + b)

    def mean_log_density(self) -> Tensor:
        """E[log p(z)], the negative entropy."""
        a, b = self._beta()
        a = a.double()
        mean = (a - b) * (torch.digamma(a) - torch.digamma(a + b))
        return self._log_normaliser() + mean.to(self.concentration.dtype)


class VonMisesFisherDistribution(_AboutMean):
    """exp(kappa mu'z) / Z, Z = (2 pi)^(D/2) I_(D/2-1)(kappa) kappa^(1-D/2).

    t is drawn by rejection (Wood 1994) from ``PROPOSALS`` proposals at once: each is accepted with a probability above 0.65,
    so that all fail once in 10^14 draws (then the last one stands), and no loop depends on the data: it compiles. The
    gradient by kappa is implicit, dt/dkappa = -(dF(t)/dkappa) / p(t) (Figurnov et al. 2018).
    """

    PROPOSALS = 32

    def _cosine(self, shape: torch.Size) -> Tensor:
        kappa = self.concentration.expand(shape)
        with torch.no_grad():
            t = self._accept(kappa)
            slope = self._slope(t, kappa)
        return t + slope * (kappa - kappa.detach())

    def _accept(self, kappa: Tensor) -> Tensor:
        kappa, m = kappa.unsqueeze(-1), self.event_shape[-1] - 1
        b = m / (2 * kappa + (4 * kappa.square() + m**2).sqrt())
        center = (1 - b) / (1 + b)
        half = torch.full((), m / 2, dtype=kappa.dtype, device=kappa.device).expand(
            *kappa.shape[:-1], self.PROPOSALS
        )
        x, y = torch._standard_gamma(half), torch._standard_gamma(half)
        t = (y - b * x) / (
            y + b * x
        )  # (1 - (1 + b) e) / (1 - (1 - b) e) with e = x / (x + y) ~ Beta(m/2, m/2)
        log_ratio = kappa * (t - center) + m * (
            torch.log1p(-center * t) - torch.log1p(-center.square())
        )
        first = (log_ratio >= torch.rand_like(t).log()).to(torch.uint8).argmax(-1, keepdim=True)
        return cast(Tensor, t.gather(-1, first).squeeze(-1))

    def _slope(self, t: Tensor, kappa: Tensor) -> Tensor:
        """dt/dkappa = int_t^1 (s - E[s]) p(s) ds / p(t), by Gauss-Legendre quadrature in the angle; in float64, for it cancels."""
        D, dtype = self.event_shape[-1], t.dtype
        nodes, weights = _gauss_legendre(t.device)
        t, kappa = t.double().unsqueeze(-1), kappa.double().unsqueeze(-1)
        angle = torch.acos(t.clamp(-1 + 1e-12, 1 - 1e-12))
        s = torch.cos(angle * nodes)
        log_ratio = kappa * (s - t) + (D - 2) * (torch.sin(angle * nodes).log() - angle.sin().log())
        integral = ((s - bessel_ratio(D / 2 - 1, kappa)) * log_ratio.exp() * weights).sum(-1)
        slope: Tensor = integral * (angle * angle.sin()).squeeze(-1)
        return slope.to(dtype)

    def _log_density(self, less: Tensor) -> Tensor:
        return self.concentration * less

    def _log_normaliser(self) -> Tensor:
        half = self.event_shape[-1] / 2
        kappa = self.concentration
        return cast(
            Tensor,
            (half - 1) * kappa.log() - half * math.log(2 * math.pi) - log_bessel(half - 1, kappa),
        )

    def _mean_cosine(self) -> Tensor:
        return bessel_ratio(self.event_shape[-1] / 2 - 1, self.concentration)

    def mean_log_density(self) -> Tensor:
        """E[log p(z)], the negative entropy."""
        return self._log_normaliser() + self.concentration * (self._mean_cosine() - 1)


def _kl_uniform(q: Any, p: Uniform) -> Tensor:
    """KL(q || uniform) = E_q[log q] + log area."""
    return cast(Tensor, q.mean_log_density() + log_area(p.event_shape[-1]))


for _family in (PowerSphericalDistribution, VonMisesFisherDistribution):
    register_kl(_family, Uniform)(_kl_uniform)  # type: ignore[no-untyped-call]


def log_area(dim: int) -> float:
    """The log-area of the unit sphere of R^dim: log(2 pi^(dim/2) / Gamma(dim/2))."""
    return math.log(2) + dim / 2 * math.log(math.pi) - math.lgamma(dim / 2)


def _gauss_legendre(device: torch.device, nodes: int = 64) -> tuple[Tensor, ...]:
    """Nodes and weights on [0, 1]."""
    points, weights = np.polynomial.legendre.leggauss(nodes)
    return tuple(
        torch.tensor(values.tolist(), dtype=torch.float64, device=device)
        for values in ((points + 1) / 2, weights / 2)
    )


def _at_least_two(dim: int) -> int:
    if dim < 2:
        raise ValueError(f"expected a sphere in at least 2 dimensions, got {dim}")
    return dim
