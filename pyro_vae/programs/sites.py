"""The sample sites of a trace: their kinds, their plates, their log-probabilities.

A site lies in the data plate, one row per datum, or outside it: then it is global.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from pyro.distributions import Unit
from pyro.distributions.util import scale_and_mask
from pyro.poutine import Trace
from pyro.poutine.util import site_is_subsample
from torch import Tensor

Program = Callable[..., Any]
Site = dict[str, Any]


class Plate(NamedTuple):
    """A plate, told by its name and its (negative) dimension."""

    name: str
    dim: int


def stochastic_sites(trace: Trace) -> list[Site]:
    """The sites that carry probability, in order: no subsamples, no ``pyro.deterministic``."""
    return [
        site
        for site in trace.nodes.values()
        if site["type"] == "sample"
        and not site_is_subsample(site)
        and not site["infer"].get("_deterministic")
    ]


def subsamples(trace: Trace) -> dict[str, Tensor]:
    """The rows that plates have chosen among more, by name."""
    return {
        name: site["value"]
        for name, site in trace.nodes.items()
        if site["type"] == "sample"
        and site_is_subsample(site)
        and len(site["value"]) < site["fn"].size
    }


def drawn_subsample(trace: Trace) -> str | None:
    """That a plate draws a subsample of its own, as a sentence; None where none does."""
    for name, site in trace.nodes.items():
        if site["type"] == "sample" and site_is_subsample(site):
            drawn = site["fn"].subsample_size
            size = site["fn"].size
            if drawn is not None and drawn < size:
                return (
                    f"expected plates without a subsample, one row per datum, got {drawn} of "
                    f"{size} in plate {name!r}: pass the data to evaluate as arguments, and size "
                    "the plate by them"
                )
    return None


def is_observed(site: Site) -> bool:
    """Whether the site is given: data, or a factor."""
    return bool(site["is_observed"])


def is_factor(site: Site) -> bool:
    """Whether ``pyro.factor`` made the site."""
    return isinstance(base_dist(site["fn"]), Unit)


def is_auxiliary(site: Site) -> bool:
    """Whether the site is a draw of the guide that the model does not have."""
    return bool(site["infer"].get("is_auxiliary")) and not is_factor(site)


def is_marked(site: Site) -> bool:
    """Whether the site's values are to be summed out: Pyro's mark for parallel enumeration."""
    return bool(site["infer"].get("enumerate") == "parallel") and not site["is_observed"]


def plates(site: Site) -> list[Plate]:
    """The vectorised plates around a site, the outermost first."""
    return [Plate(f.name, f.dim) for f in site["cond_indep_stack"] if f.vectorized]


def data_plate(model_trace: Trace) -> Plate | None:
    """The outermost plate, by nesting, that all observed sites of the model share."""
    sites = stochastic_sites(model_trace)
    observed = [site for site in sites if site["is_observed"] and not is_factor(site)]
    stacks = [plates(site) for site in observed or sites]
    if not stacks:
        return None
    return next((p for p in stacks[0] if all(p in stack for stack in stacks)), None)


def in_plate(site: Site, plate: Plate | None) -> bool:
    """Whether a site has one row per datum; without a plate everything is one datum."""
    if plate is None:
        return True
    frames = site["cond_indep_stack"]
    return any(f.dim == plate.dim and f.name == plate.name for f in frames)


def log_prob(site: Site, scaled: bool = True, value: Tensor | None = None) -> Tensor:
    """The log-probability of a site over its batch shape, masked, and if asked scaled.

    ``value`` stands for the site's own value.
    """
    logp = site["fn"].log_prob(site["value"] if value is None else value)
    return scaled_and_masked(logp, site, scaled)


def scaled_and_masked(term: Tensor, site: Site, scaled: bool) -> Tensor:
    """A term of a site over its batch shape, masked as the site is, and if asked scaled."""
    if not scaled and site["mask"] is None:
        return term
    result: Tensor = scale_and_mask(term, site["scale"] if scaled else 1.0, site["mask"])
    return result


def per_row(value: Tensor, plate: Plate | None) -> Tensor:
    """Sum over all batch dimensions but the data plate's; (R,), or (1,) without a plate."""
    if plate is None:
        return value.sum().reshape(1)
    if value.ndim < -plate.dim:
        raise ValueError(
            f"expected a batch dimension for plate {plate.name!r} at dim {plate.dim}, "
            f"got a log-probability of shape {tuple(value.shape)}"
        )
    dims = [dim for dim in range(-value.ndim, 0) if dim != plate.dim]
    return value.sum(dims) if dims else value


def base_name(fn: Any) -> str:
    """The name of a distribution's family."""
    return type(base_dist(fn)).__name__.removesuffix("Distribution")


def base_dist(fn: Any) -> Any:
    """A distribution below ``.to_event``, ``.expand`` and ``.mask``."""
    while hasattr(fn, "base_dist"):
        fn = fn.base_dist
    return fn


def differing_scales(sites: Sequence[Site]) -> tuple[Site, Site] | None:
    """Two sites with another ``poutine.scale`` each; None where all have the same."""
    for other in sites[1:]:
        if not _same_scale(sites[0]["scale"], other["scale"]):
            return sites[0], other
    return None


def _same_scale(first: Any, other: Any) -> bool:
    if other is first:
        return True
    if isinstance(other, Tensor) or isinstance(first, Tensor):
        return _same_tensor(first, other)
    return bool(other == first)


def _same_tensor(first: Any, other: Any) -> bool:
    """Whether two scales are equal; tensors inside a graph count as different."""
    if torch._guards.detect_fake_mode((first, other)) is not None:
        return False
    return bool(torch.equal(torch.as_tensor(first), torch.as_tensor(other)))


def same_mask(first: Site, other: Site) -> bool:
    """Whether two sites leave out the same elements; inside a graph, whether both have a mask."""
    if first["mask"] is None or other["mask"] is None:
        return first["mask"] is other["mask"]
    if torch._guards.detect_fake_mode() is not None:
        return True
    return bool((torch.as_tensor(first["mask"]) == torch.as_tensor(other["mask"])).all())
