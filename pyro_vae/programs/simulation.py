"""Data from the model itself, in place of the data it was given."""

from typing import Any, NamedTuple

import torch
from pyro import poutine
from torch import Tensor

from .isolation import isolated
from .modules import modules_of
from .sites import Program, Site, is_factor, stochastic_sites


class Simulation(NamedTuple):
    """A draw (x, z) ~ p(x, z), and the call that observes it."""

    args: tuple[Any, ...]
    """The arguments, the observed data replaced by simulated ones."""
    kwargs: dict[str, Any]
    latents: dict[str, Tensor]
    """By site: an exact draw from the posterior p(z | x) of the simulated data."""


def simulate(model: Program, *args: Any, **kwargs: Any) -> Simulation:
    """Draw z ~ p(z), x ~ p(x | z) and put x where the observed data are among the arguments.

    The argument that holds a site's data is known by its values (``obs=x.reshape(...)`` is found
    too), so any program will do.

    Raises ``ValueError`` where the model observes no argument, or more than one, at a site.

    >>> simulation = simulate(vae.model, torch.zeros(3, 64))
    >>> simulation.args[0].shape, simulation.latents["z"].shape
    (torch.Size([3, 64]), torch.Size([3, 2]))
    """
    # sites that observe nothing are valid by construction
    with torch.no_grad(), isolated(modules_of(model), validate=False):
        return dream(model, args, kwargs, by_value=True)


def dream(
    model: Program, args: tuple[Any, ...], kwargs: dict[str, Any], *, by_value: bool = False
) -> Simulation:
    """As :func:`simulate`, within a run of one's own; arguments are known by identity.

    ``by_value`` also finds those that the model observes in another shape; to compare values
    synchronises a GPU.
    """
    trace = poutine.trace(poutine.uncondition(model)).get_trace(*args, **kwargs)
    sites = [site for site in stochastic_sites(trace) if not is_factor(site)]
    call: dict[Any, Any] = {**dict(enumerate(args)), **kwargs}
    replaced = dict(call)
    for site in (site for site in sites if site["infer"].get("was_observed")):
        key = _holder(site, call, by_value)
        replaced[key] = site["value"].reshape(call[key].shape)
    latents = [site for site in sites if not site["infer"].get("was_observed")]
    return Simulation(
        tuple(replaced[i] for i in range(len(args))),
        {name: replaced[name] for name in kwargs},
        {site["name"]: site["value"] for site in latents},
    )


def _holder(site: Site, call: dict[Any, Any], by_value: bool) -> Any:
    """The position or name of the argument that holds the data of an observed site."""
    data = site["infer"]["obs"]
    tensors = {key: value for key, value in call.items() if isinstance(value, Tensor)}
    holders = [key for key, value in tensors.items() if value is data]
    if not holders and by_value:
        holders = [key for key, value in tensors.items() if _same(value, data)]
    if len(holders) != 1:
        raise ValueError(
            f"expected the model to observe one of its arguments as it is at site "
            f"{site['name']!r}, got {f'arguments {holders}' if holders else 'other data'}"
        )
    return holders[0]


def _same(value: Tensor, data: Tensor) -> bool:
    return value.numel() == data.numel() and torch.equal(value.reshape(data.shape).to(data), data)
