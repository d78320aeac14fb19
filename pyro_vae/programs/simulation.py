"""Data from the model itself, in place of the data it was given."""

from typing import Any, NamedTuple

import torch
from pyro import poutine
from torch import Tensor

from .isolation import isolated
from .sites import Program, Site, stochastic_sites


class Simulation(NamedTuple):
    """A draw (x, z) ~ p(x, z), and the call that observes it."""

    args: tuple[Any, ...]
    """The arguments, the observed data replaced by simulated ones."""
    kwargs: dict[str, Any]
    latents: dict[str, Tensor]
    """By site: an exact draw from the posterior p(z | x) of the simulated data."""


def simulate(model: Program, *args: Any, **kwargs: Any) -> Simulation:
    """Draw z ~ p(z), x ~ p(x | z) and put x where the observed data are among the arguments.

    The argument that holds a site's data is known by its values (``obs=x.reshape(...)`` is found too), so any program will do.

    Raises ``ValueError`` where not exactly one argument holds the data of an observed site.

    >>> from pyro_vae import VAE, Bernoulli, DiagonalNormal, StandardNormal, mlp
    >>> vae = VAE(StandardNormal(2), Bernoulli(mlp(2, 16, 64)), DiagonalNormal(mlp(64, 16, 4)))
    >>> simulation = simulate(vae.model, torch.zeros(3, 64))
    >>> simulation.args[0].shape, simulation.latents["z"].shape
    (torch.Size([3, 64]), torch.Size([3, 2]))
    """
    with (
        torch.no_grad(),
        isolated(model, validate=False, keep_store=True),
    ):  # unconditioned sites are valid by construction
        sites = stochastic_sites(
            poutine.trace(poutine.uncondition(model)).get_trace(*args, **kwargs)
        )
    call: dict[Any, Any] = {**dict(enumerate(args)), **kwargs}
    replaced = dict(call)
    for site in (site for site in sites if site["infer"].get("was_observed")):
        key = _holder(site, call)
        replaced[key] = site["value"].reshape(call[key].shape)
    latents = {
        site["name"]: site["value"] for site in sites if not site["infer"].get("was_observed")
    }
    return Simulation(
        tuple(replaced[i] for i in range(len(args))),
        {name: replaced[name] for name in kwargs},
        latents,
    )


def _holder(site: Site, call: dict[Any, Any]) -> Any:
    """The position or name of the argument that holds the data of an observed site."""
    data = site["infer"]["obs"]
    holders = [
        key for key, value in call.items() if isinstance(value, Tensor) and _same(value, data)
    ]
    if len(holders) != 1:
        raise ValueError(
            f"expected one argument to hold the data of site {site['name']!r}, got {len(holders)}: {holders}"
        )
    return holders[0]


def _same(value: Tensor, data: Tensor) -> bool:
    return value.numel() == data.numel() and torch.equal(value.reshape(data.shape).to(data), data)
