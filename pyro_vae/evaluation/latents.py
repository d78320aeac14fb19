"""How the guide uses its latent space: posterior means, active units."""

from typing import Any

import torch
from pyro import poutine
from pyro.poutine import Trace
from torch import Tensor

from ..families.moments import mean
from ..programs.isolation import looking
from ..programs.modules import modules_of
from ..programs.sites import (
    Plate,
    Program,
    Site,
    data_plate,
    in_plate,
    is_auxiliary,
    stochastic_sites,
)
from ..programs.structure import Latent, Structure


def latent_means(guide: Program, *args: Any, num_samples: int = 64, **kwargs: Any) -> Tensor:
    """Return E[z | x] under the guide, all continuous sites concatenated, of shape (B, D).

    Where a family has no mean in closed form, the mean of ``num_samples`` draws replaces it.
    Modules are used in ``eval`` mode.

    Raises ``ValueError`` where the guide has no continuous site with one row per datum.

    >>> latent_means(vae.guide, torch.ones(3, 64)).shape
    torch.Size([3, 2])
    """
    with looking(modules_of(guide)):
        trace = poutine.trace(guide).get_trace(*args, **kwargs)
        means = _means(trace, data_plate(trace), num_samples)
    if means is None:
        raise ValueError("expected a continuous latent site with one row per datum, got none")
    return means


def site_means(guide_trace: Trace, found: Structure, num_samples: int = 64) -> Tensor | None:
    """E[z | x] of the continuous sites in the data plate, concatenated, (B, D), or None."""
    return _means(guide_trace, found.plate, num_samples)


def _means(trace: Trace, plate: Plate | None, num_samples: int) -> Tensor | None:
    sites = [site for site in stochastic_sites(trace) if _has_mean(site, plate)]
    if plate is None or not sites:
        return None
    rows = [
        Latent(site["fn"].event_dim, plate.dim).from_rows(mean(site["fn"], num_samples), 1)[0]
        for site in sites
    ]
    return torch.cat([row.flatten(1) if row.ndim > 1 else row.unsqueeze(1) for row in rows], -1)


def _has_mean(site: Site, plate: Plate | None) -> bool:
    """Whether a site's values are real numbers, one row per datum."""
    discrete = not site["value"].is_floating_point() or site["fn"].support.is_discrete
    latent = not site["is_observed"] and not is_auxiliary(site)
    return latent and not discrete and in_plate(site, plate)


def active_units(means: Tensor, again: Tensor | None = None, *, threshold: float = 0.01) -> int:
    """Count the latent dimensions that the guide uses: Var_x(E[z_d | x]) > ``threshold``.

    ``means`` is (N, D). Means of a few draws also vary by the noise of the draws. In this case pass
    the means of other draws as ``again``: Cov_x(means, again) estimates the variance without noise.

    Source: Burda, Grosse & Salakhutdinov, *Importance Weighted Autoencoders*, 2015, section 5.2.

    >>> active_units(torch.tensor([[0.0, 0.0], [1.0, 0.1]]))
    1
    """
    again = means if again is None else again
    covariance = ((means - means.mean(0)) * (again - again.mean(0))).sum(0) / (len(means) - 1)
    return int((covariance > threshold).sum())
