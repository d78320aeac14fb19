"""The KL of each latent site: the information of each layer of a hierarchical model."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..programs.checks import at_least
from ..programs.pair import Pair
from ..programs.rows import chunks
from ..programs.sites import Program, Site, is_auxiliary, is_factor, stochastic_sites
from .kl import check_drawn

ROWS = 2048
"""The number of rows (samples x data) in one run of the programs."""


def kl_by_site(
    model: Program,
    guide: Program,
    *args: Any,
    num_samples: int = 1,
    rows: Sequence[int | str] | None = None,
    **kwargs: Any,
) -> dict[str, Tensor]:
    """Return E_q[log q(z_l | ...) - log p(z_l | ...)] of each latent site, (B,), in nats.

    Both densities of a site are conditional on its parents, in the guide and in the model. The sum
    over all sites is the rate, KL(q(z | x) || p(z)). A single term may be negative where guide and
    model give a site different parents. The means are over ``num_samples`` draws z ~ q(z | x).

    Source: Sønderby et al., *Ladder Variational Autoencoders*, 2016, section 3.

    Raises ``ValueError`` for fewer than one sample, sites that are summed out, factors or auxiliary
    sites of the guide, and programs without a weight for each datum.

    >>> {name: kl.shape for name, kl in kl_by_site(vae.model, vae.guide, torch.ones(3, 64)).items()}
    {'z': torch.Size([3])}
    """
    at_least(1, num_samples=num_samples)
    pair = Pair(model, guide, rows=rows)
    call = (args, kwargs)
    with pair.looking():
        found = pair.sliced(call)
        check_drawn(found)
        size = max(1, ROWS // num_samples)
        parts = [
            _kl_by_site(pair, found.rows.take(call, part), num_samples)
            for part in chunks(found.rows.size, size)
        ]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _kl_by_site(pair: Pair, call: tuple[Any, Any], num_samples: int) -> dict[str, Tensor]:
    draw = pair.draw(*call, num_samples)
    guide = stochastic_sites(draw.guide_traces[0])
    extra = [site["name"] for site in guide if is_factor(site) or is_auxiliary(site)]
    if extra or draw.mixed:
        raise ValueError(
            "expected a guide of the model's latent sites alone, of one scale, got "
            + (f"others, {extra}" if extra else "several scales")
        )
    if len(guide) == 1:
        return {guide[0]["name"]: draw.mean(draw.log_guide - draw.log_prior)}
    return {site["name"]: draw.mean(draw.over_latents(_of(site["name"]))) for site in guide}


def _of(name: str) -> Callable[[Site, Site], Tensor]:
    """log q - log p of one site; zero for the others."""

    def function(q: Site, p: Site) -> Tensor:
        z: Tensor = q["value"]
        if q["name"] != name:
            return z.new_zeros(q["fn"].batch_shape)
        log_q: Tensor = q["fn"].log_prob(z)
        log_p: Tensor = p["fn"].log_prob(p["value"])
        return log_q - log_p

    return function
