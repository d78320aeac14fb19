"""The sample sites of a trace: their log-probabilities and their plates."""

from collections.abc import Callable, Iterable
from functools import reduce
from typing import Any, cast

import torch
from pyro.distributions.util import scale_and_mask
from pyro.poutine import Trace
from pyro.poutine.util import site_is_subsample
from torch import Tensor

Program = Callable[..., Any]


Site = dict[str, Any]


PARTICLES = "num_particles_vectorized"  # the name Pyro's own objectives give this plate


def log_prob_sum(sites: Iterable[Site], keep: set[int | None], scaled: bool = True) -> Tensor:
    """The log-probability of the sites together, summed over all (negative) batch dimensions but those in ``keep``."""
    values = [sum_but(log_prob(site, scaled), keep) for site in sites]
    return reduce(torch.add, values) if values else torch.zeros(())


def log_prob(site: Site, scaled: bool = True) -> Tensor:
    """The log-probability of one site over its batch shape, masked and scaled as its handlers ask."""
    return cast(
        Tensor,
        scale_and_mask(
            site["fn"].log_prob(site["value"]), site["scale"] if scaled else 1.0, site["mask"]
        ),
    )


def score_sum(sites: Iterable[Site], keep: set[int | None]) -> Tensor:
    """log q at the draws of some sites, neither scaled nor masked: the draws were not."""
    values = [sum_but(site["fn"].log_prob(site["value"]), keep) for site in sites]
    return reduce(torch.add, values) if values else torch.zeros(())


def sum_but(value: Tensor, keep: set[int | None]) -> Tensor:
    """Sum over all (negative) dimensions but those in ``keep``."""
    dims = [dim for dim in range(-value.ndim, 0) if dim not in keep]
    return value.sum(dims) if dims else value


def stochastic_sites(trace: Trace) -> list[Site]:
    """The sample sites of a trace, in order, without the subsample sites of plates and without ``pyro.deterministic``."""
    sites = (
        site
        for site in trace.nodes.values()
        if site["type"] == "sample" and not site_is_subsample(site)
    )
    return [site for site in sites if not site["infer"].get("_deterministic")]


def densities(guide_trace: Trace) -> list[Site]:
    """The sites of a guide that are part of log q(z | x): all but ``pyro.factor``."""
    return [site for site in stochastic_sites(guide_trace) if base_name(site["fn"]) != "Unit"]


def particle_dim(trace: Trace) -> int | None:
    """The dimension of the plate of particles, if :func:`draw` opened one."""
    frames = (frame for site in stochastic_sites(trace) for frame in site["cond_indep_stack"])
    return next((frame.dim for frame in frames if frame.name == PARTICLES), None)


def data_dim(*traces: Trace) -> int | None:
    """The (negative) dimension of the outermost plate, by nesting, around every sample site: one row per datum."""
    first, *others = [_common_dims(trace) for trace in traces if stochastic_sites(trace)] or [[]]
    return next((dim for dim in first if all(dim in dims for dims in others)), None)


def _common_dims(trace: Trace) -> list[int]:
    """The dimensions of the plates around every site, the outermost first.

    A plate is known by its name and dimension: two plates side by side may share a dimension.
    """
    stacks = [
        [(f.name, f.dim) for f in site["cond_indep_stack"] if f.vectorized and f.name != PARTICLES]
        for site in stochastic_sites(trace)
    ]
    return [plate[1] for plate in stacks[0] if all(plate in stack for stack in stacks)]


def nesting(*traces: Trace) -> int:
    """How many dimensions the programs' own plates take up."""
    frames = (
        f
        for t in traces
        for site in stochastic_sites(t)
        for f in site["cond_indep_stack"]
        if f.vectorized
    )
    return max((-f.dim for f in frames if f.name != PARTICLES), default=0)


def base_name(fn: Any) -> str:
    """The name of a distribution's family, below ``.to_event`` and ``.expand``."""
    return type(base_dist(fn)).__name__.removesuffix("Distribution")


def base_dist(fn: Any) -> Any:
    """A distribution below ``.to_event``, ``.expand`` and ``.mask``."""
    while hasattr(fn, "base_dist"):
        fn = fn.base_dist
    return fn
