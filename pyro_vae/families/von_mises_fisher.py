"""The von Mises-Fisher family on the unit sphere."""

import math

import numpy as np
import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions.kl import register_kl

from .bessel import bessel_ratio, log_bessel
from .spherical import AboutMean, Spherical, Uniform, kl_to_uniform


class VonMisesFisher(Spherical):
    """p(z) proportional to exp(kappa mu'z) on the unit sphere of R^D; z is (..., D).

    The network gives (mu before normalisation, kappa before softplus).

    Raises ``ValueError`` for fewer than two dimensions.

    Source: Davidson et al., *Hyperspherical Variational Auto-Encoders*, 2018.

    >>> from torch import nn
    >>> q = VonMisesFisher.over(lambda outputs: nn.Linear(8, outputs), 3)
    >>> q(torch.ones(5, 8)).sample().shape
    torch.Size([5, 3])
    """

    def forward(self, *parents: Tensor) -> dist.Distribution:
        return VonMisesFisherDistribution(*self.mean_and_concentration(*parents))


class VonMisesFisherDistribution(AboutMean):
    """exp(kappa mu'z) / Z, Z = (2 pi)^(D/2) I_(D/2-1)(kappa) kappa^(1-D/2).

    t is drawn by rejection (Wood 1994) from ``PROPOSALS`` proposals at once, so no loop depends on
    the data and a draw can be compiled. Each proposal is accepted with a probability above 0.65.
    All are rejected once in 10^14 draws; the first one is taken then. The gradient in kappa is
    implicit, dt/dkappa = -(dF(t)/dkappa) / p(t) (Figurnov et al. 2018).
    """

    PROPOSALS = 32

    def _cosine(self, shape: torch.Size) -> Tensor:
        kappa = self.concentration.expand(shape)
        with torch.no_grad():
            t = self._accept(kappa)
            slope = self._slope(t, kappa)
        return t + slope * (kappa - kappa.detach())

    def _accept(self, kappa: Tensor) -> Tensor:
        kappa = kappa.unsqueeze(-1)
        m = self.event_shape[-1] - 1
        b = m / (2 * kappa + (4 * kappa.square() + m**2).sqrt())
        center = (1 - b) / (1 + b)
        half = torch.full((), m / 2, dtype=kappa.dtype, device=kappa.device)
        half = half.expand(*kappa.shape[:-1], self.PROPOSALS)
        x = torch._standard_gamma(half)
        y = torch._standard_gamma(half)
        # (1 - (1 + b) e) / (1 - (1 - b) e) with e = x / (x + y) ~ Beta(m/2, m/2)
        t = (y - b * x) / (y + b * x)
        decay = torch.log1p(-center * t) - torch.log1p(-center.square())
        log_ratio = kappa * (t - center) + m * decay
        first = (log_ratio >= torch.rand_like(t).log()).to(torch.uint8).argmax(-1, keepdim=True)
        accepted: Tensor = t.gather(-1, first).squeeze(-1)
        return accepted

    def _slope(self, t: Tensor, kappa: Tensor) -> Tensor:
        """dt/dkappa = int_t^1 (s - E[s]) p(s) ds / p(t), by Gauss-Legendre quadrature in the angle.

        It is computed in float64, because the terms of the integral cancel.
        """
        D = self.event_shape[-1]
        dtype = t.dtype
        nodes, weights = _gauss_legendre(t.device)
        t = t.double().unsqueeze(-1)
        kappa = kappa.double().unsqueeze(-1)
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
        power: Tensor = (half - 1) * kappa.log() - half * math.log(2 * math.pi)
        return power - log_bessel(half - 1, kappa)

    def _mean_cosine(self) -> Tensor:
        return bessel_ratio(self.event_shape[-1] / 2 - 1, self.concentration)

    def mean_log_density(self) -> Tensor:
        """E[log p(z)], the negative entropy."""
        return self._log_normaliser() + self.concentration * (self._mean_cosine() - 1)


def _gauss_legendre(device: torch.device, nodes: int = 64) -> tuple[Tensor, ...]:
    """The nodes and weights of Gauss-Legendre quadrature on [0, 1]."""
    points, weights = np.polynomial.legendre.leggauss(nodes)
    return tuple(
        torch.tensor(values.tolist(), dtype=torch.float64, device=device)
        for values in ((points + 1) / 2, weights / 2)
    )


register_kl(VonMisesFisherDistribution, Uniform)(kl_to_uniform)
