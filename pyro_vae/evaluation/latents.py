"""The guide's use of its latent space: posterior means, active units."""

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
    means = means_by_site(guide, *args, num_samples=num_samples, **kwargs)
    return torch.cat([*means.values()], -1)


def means_by_site(
    guide: Program, *args: Any, num_samples: int = 64, **kwargs: Any
) -> dict[str, Tensor]:
    """Return the mean of each continuous site of the guide, (B, D_l), by name.

    The mean of a site that depends on other sites is its mean given one draw of the others, so two
    calls differ. ``active_units(means, again)`` of the results of two calls removes the noise of
    these draws. The arguments and errors are those of :func:`latent_means`.

    >>> {name: means.shape for name, means in means_by_site(vae.guide, torch.ones(3, 64)).items()}
    {'z': torch.Size([3, 2])}
    """
    with looking(modules_of(guide)):
        trace = poutine.trace(guide).get_trace(*args, **kwargs)
        means = _means(trace, data_plate(trace), num_samples)
    if not means:
        raise ValueError("expected a continuous latent site with one row per datum, got none")
    return means


def site_means(guide_trace: Trace, found: Structure, num_samples: int = 64) -> Tensor | None:
    """E[z | x] of the continuous sites in the data plate, concatenated, (B, D), or None."""
    means = _means(guide_trace, found.plate, num_samples)
    return torch.cat([*means.values()], -1) if means else None


def _means(trace: Trace, plate: Plate | None, num_samples: int) -> dict[str, Tensor]:
    if plate is None:
        return {}
    means = {}
    for site in stochastic_sites(trace):
        if _has_mean(site, plate):
            layout = Latent(site["fn"].event_dim, plate.dim)
            row = layout.from_rows(mean(site["fn"], num_samples), 1)[0]
            means[site["name"]] = row.flatten(1) if row.ndim > 1 else row.unsqueeze(1)
    return means


def _has_mean(site: Site, plate: Plate | None) -> bool:
    """Whether the values of a site are real numbers, with one row per datum."""
    discrete = not site["value"].is_floating_point() or site["fn"].support.is_discrete
    latent = not site["is_observed"] and not is_auxiliary(site)
    return latent and not discrete and in_plate(site, plate)


def active_units(means: Tensor, again: Tensor | None = None, *, threshold: float = 0.01) -> int:
    """Count the latent dimensions that the guide uses: Var_x(E[z_d | x]) > ``threshold``.

    ``means`` is (N, D). If the means are those of a few draws, the noise of the draws adds to the
    variance. In this case pass the means of other draws as ``again``, (N, D): Cov_x(means, again)
    estimates the variance without this noise.

    Source: Burda, Grosse & Salakhutdinov, *Importance Weighted Autoencoders*, 2015, section 5.2.

    >>> active_units(torch.tensor([[0.0, 0.0], [1.0, 0.1]]))
    1
    """
    again = means if again is None else again
    covariance = ((means - means.mean(0)) * (again - again.mean(0))).sum(0) / (len(means) - 1)
    return int((covariance > threshold).sum())
