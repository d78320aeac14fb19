"""The Power Spherical family on the unit sphere."""

import math

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions.kl import register_kl

from .spherical import AboutMean, Spherical, Uniform, kl_to_uniform


class PowerSpherical(Spherical):
    """p(z) proportional to (1 + mu'z)^kappa on the unit sphere of R^D; z is (..., D).

    The network gives (mu before normalisation, kappa before softplus).

    Raises ``ValueError`` for fewer than two dimensions.

    Source: De Cao & Aziz, *The Power Spherical Distribution*, 2020.

    >>> from torch import nn
    >>> q = PowerSpherical.over(lambda outputs: nn.Linear(8, outputs), 3)
    >>> q(torch.ones(5, 8)).sample().shape
    torch.Size([5, 3])
    """

    def forward(self, *parents: Tensor) -> dist.Distribution:
        return PowerSphericalDistribution(*self.mean_and_concentration(*parents))


class PowerSphericalDistribution(AboutMean):
    """(1 + mu'z)^kappa / Z: (1 + t) / 2 ~ Beta(a, b) with b = (D - 1)/2 and a = b + kappa.

    log Z = (a + b) log 2 + b log pi + log Gamma(a) - log Gamma(a + b)

    The density is computed as ((1 + t) / 2)^kappa over Z / 2^kappa: the logarithms of these two do
    not grow with kappa. The second is computed in float64.
    """

    def _beta(self) -> tuple[Tensor, float]:
        b = (self.event_shape[-1] - 1) / 2
        return self.concentration + b, b

    def _cosine(self, shape: torch.Size) -> Tensor:
        a, b = self._beta()
        x = torch._standard_gamma(a.expand(shape))
        y = torch._standard_gamma(torch.full_like(a, b).expand(shape))
        return (x - y) / (x + y)

    def _log_density(self, less: Tensor) -> Tensor:
        least = torch.finfo(less.dtype).eps / 2 - 1
        return self.concentration * torch.log1p((less / 2).clamp(min=least))

    def _log_normaliser(self) -> Tensor:
        a, b = self._beta()
        a = a.double()  # terms of size kappa log kappa: their difference is inexact in float32
        log_normaliser = torch.lgamma(a + b) - torch.lgamma(a) - b * math.log(4 * math.pi)
        return log_normaliser.to(self.concentration.dtype)

    def _mean_cosine(self) -> Tensor:
        a, b = self._beta()
        return (a - b) / (a + b)

    def mean_log_density(self) -> Tensor:
        """E[log p(z)], the negative entropy."""
        a, b = self._beta()
        a = a.double()
        mean = (a - b) * (torch.digamma(a) - torch.digamma(a + b))
        return self._log_normaliser() + mean.to(self.concentration.dtype)


register_kl(PowerSphericalDistribution, Uniform)(kl_to_uniform)
