"""Importance-weighted objectives: K draws per datum, one importance weight for each.

w_kb = p(x_b, z_kb) / q(z_kb | x_b),  z_kb ~ q(z | x_b):   log p(x_b) >= E[log 1/K sum_k w_kb] >= ELBO.

The weights combine all terms of a datum in one logarithm: there is no KL to multiply by a beta, and a ``poutine.scale``
is taken out of the logarithm where all sites share it (a subsampled plate) and refused where they do not.
"""

import math
from dataclasses import dataclass
from typing import Any

from pyro.poutine import Trace
from torch import Tensor

from ..programs.checks import check_latents
from ..programs.scoring import Terms, draw, terms
from ..programs.sites import Program, base_name, stochastic_sites
from .estimate import Estimate


@dataclass(frozen=True)
class ImportanceWeighted:
    """The arguments that these objectives share; ``max_plate_nesting`` is the depth of the programs' plates."""

    num_particles: int = 5
    max_plate_nesting: int = 1

    def __post_init__(self) -> None:
        if self.num_particles < 1:
            raise ValueError(f"expected num_particles of at least 1, got {self.num_particles}")

    def __call__(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> Estimate:
        raise NotImplementedError

    def _bound(self, log_weight: Tensor) -> Tensor:
        """log 1/K sum_k w_k of each datum, from log weights (K, B)."""
        return log_weight.logsumexp(0) - math.log(self.num_particles)


class IWAE(ImportanceWeighted):
    """The importance-weighted bound, which tightens towards log p(x) as K = ``num_particles`` grows.

    loss = -sum_b log 1/K sum_k w_kb

    Source: Burda, Grosse & Salakhutdinov, *Importance Weighted Autoencoders*, 2015.

    Raises ``ValueError`` for K < 1 or sites of different scales, ``TypeError`` for latents that are not reparameterised.

    >>> from pyro_vae import VAE, Bernoulli, DiagonalNormal, StandardNormal, mlp
    >>> vae = VAE(StandardNormal(2), Bernoulli(mlp(2, 16, 64)), DiagonalNormal(mlp(64, 16, 4)))
    >>> IWAE(50)(vae.model, vae.guide, torch.ones(3, 64)).loss.shape
    torch.Size([])
    """

    def __call__(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> Estimate:
        """Return the estimate for a batch."""
        traces = draw(model, guide, args, kwargs, self.num_particles, self.max_plate_nesting)
        check_reparameterised(traces[1], "ReweightedWakeSleep")
        now = terms(*traces, scaled=False)
        return estimate(-self._bound(now.log_weight), now, common_scale(*traces))


def estimate(loss: Tensor, now: Terms, scale: Any = 1.0) -> Estimate:
    """The sums over the batch of a loss per datum (B,), and of terms (K, B) averaged over the draws."""
    log_likelihood, kl = now.log_likelihood.detach(), (now.log_guide - now.log_prior).detach()
    return Estimate(*(scale * value.sum() for value in (loss, log_likelihood.mean(0), kl.mean(0))))


def with_gradient(value: Tensor, of: Tensor) -> Tensor:
    """The sum of ``value``, with the gradient of the scalar ``of``."""
    return value.detach().sum() + of - of.detach()


def common_scale(*traces: Trace) -> Any:
    """The ``poutine.scale`` that all sites share: it multiplies the bound, not the weights.

    Raises ``ValueError`` where sites differ in scale, or the guide has a factor or no site: a logarithm of weights has no place
    for them.
    """
    factors = [
        site["name"] for site in stochastic_sites(traces[-1]) if base_name(site["fn"]) == "Unit"
    ]
    if factors:
        raise ValueError(
            f"expected no pyro.factor in the guide, got {factors}: it is part of an ELBO and of no weight, use Trace_ELBO"
        )
    check_latents(traces[-1])
    scales = [site["scale"] for trace in traces for site in stochastic_sites(trace)]
    different = [
        s
        for s in scales
        if s is not scales[0]
        and (isinstance(s, Tensor) or isinstance(scales[0], Tensor) or s != scales[0])
    ]
    if different:
        raise ValueError(
            f"expected one scale for all sites, got {scales[0]} and {different[0]}: importance weights are not annealed, use Trace_ELBO"
        )
    return scales[0]


def check_reparameterised(guide_trace: Trace, otherwise: str) -> None:
    """Raise ``TypeError`` where the guide draws a site without a gradient."""
    for site in stochastic_sites(guide_trace):
        if not site["fn"].has_rsample:
            raise TypeError(
                f"expected reparameterised latents, got {base_name(site['fn'])} at site {site['name']!r}: use {otherwise}"
            )
