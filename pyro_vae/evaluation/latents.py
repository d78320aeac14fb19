"""What the guide does with its latent space: posterior means, active units."""

from typing import Any

import torch
from pyro import poutine
from pyro.poutine import Trace
from torch import Tensor

from ..families.moments import mean
from ..programs.checks import dtypes_explained
from ..programs.isolation import evaluation
from ..programs.sites import Program, Site, data_dim, densities


def latent_means(guide: Program, *args: Any, num_samples: int = 64, **kwargs: Any) -> Tensor:
    """Return E[z | x] under the guide, all continuous sites side by side, of shape (B, D).

    Where a family knows no mean in closed form, the mean of ``num_samples`` draws stands for it. Modules are used in
    ``eval`` mode.

    >>> from pyro_vae import VAE, Bernoulli, DiagonalNormal, StandardNormal, mlp
    >>> vae = VAE(StandardNormal(2), Bernoulli(mlp(2, 16, 64)), DiagonalNormal(mlp(64, 16, 4)))
    >>> latent_means(vae.guide, torch.ones(3, 64)).shape
    torch.Size([3, 2])
    """
    with evaluation(guide), dtypes_explained(args, kwargs, guide):
        trace = poutine.trace(guide).get_trace(*args, **kwargs)
        sites = continuous_sites(trace)
        if not sites:  # categories have no mean
            return torch.zeros(
                next(len(x) for x in (*args, *kwargs.values()) if isinstance(x, Tensor) and x.ndim),
                0,
            )
        return site_means(sites, data_dim(trace), num_samples)


def continuous_sites(guide_trace: Trace) -> list[Site]:
    """The sites of a trace whose values have a mean."""
    return [site for site in densities(guide_trace) if site["value"].is_floating_point()]


def site_means(sites: list[Site], dim: int | None, num_samples: int = 64) -> Tensor:
    """E[z | x] of some sites side by side, (B, D); ``dim`` is the dimension of the data, the first where it is None."""
    means = [mean(site["fn"], num_samples) for site in sites]
    first = [
        value if dim is None else value.movedim(dim - site["fn"].event_dim, 0)
        for site, value in zip(sites, means, strict=True)
    ]
    return torch.cat([value.reshape(len(value), -1) for value in first], -1)


def active_units(means: Tensor, again: Tensor | None = None, *, threshold: float = 0.01) -> int:
    """Count the latent dimensions the guide uses: Var_x(E[z_d | x]) > ``threshold``; ``means`` is (N, D).

    Means of a few draws vary by the draws' noise alone. ``again`` are then the means of other draws: Cov_x(means, again)
    estimates the variance without it.

    Source: Burda, Grosse & Salakhutdinov, *Importance Weighted Autoencoders*, 2015, section 5.2.

    >>> active_units(torch.tensor([[0.0, 0.0], [1.0, 0.1]]))
    1
    """
    again = means if again is None else again
    covariance = ((means - means.mean(0)) * (again - again.mean(0))).sum(0) / (len(means) - 1)
    return int((covariance > threshold).sum())
