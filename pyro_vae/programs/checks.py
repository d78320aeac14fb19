"""Checks of a pair of programs, on their first run: sites, shapes, support, types."""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from pyro.poutine import Trace
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils import _pytree as pytree

from .rows import Call
from .sites import (
    Plate,
    Site,
    base_name,
    data_plate,
    in_plate,
    is_auxiliary,
    is_factor,
    is_marked,
    stochastic_sites,
)


def at_least(least: int, **values: float | None) -> None:
    """Raise ``ValueError`` for a number below its least value; None is no number.

    >>> at_least(1, num_samples=-5)
    Traceback (most recent call last):
    ValueError: expected num_samples of at least 1, got -5
    """
    for name, value in values.items():
        if value is not None and not value >= least:
            raise ValueError(f"expected {name} of at least {least}, got {value}")


def check_pair(model_trace: Trace, guide_trace: Trace) -> None:
    """Raise ``ValueError`` unless the two programs belong together, and fit the data."""
    check_sites(model_trace, guide_trace)
    check_plates(model_trace, guide_trace)
    check_support(model_trace)


def check_sites(model_trace: Trace, guide_trace: Trace) -> None:
    """Raise ``ValueError`` unless the guide samples the latent sites of the model.

    A site of the model that is to be summed out may be missing from the guide. Some site of the
    model must be observed.
    """
    sites = stochastic_sites(model_trace)
    latent = {site["name"]: site for site in sites if not site["is_observed"]}
    guided = {
        site["name"]: site
        for site in stochastic_sites(guide_trace)
        if not is_factor(site) and not is_auxiliary(site)
    }
    observed = sorted(name for name, site in guided.items() if site["is_observed"])
    if observed:
        raise ValueError(f"expected no observed sites in the guide, got {observed}")
    needed = {name for name, site in latent.items() if name in guided or not is_marked(site)}
    if needed != guided.keys():
        missing = sorted(needed - guided.keys())
        unknown = sorted(guided.keys() - needed)
        raise ValueError(
            f"expected the guide to sample the model's latent sites {sorted(latent)}, "
            f"got {sorted(guided)} (missing {missing}, unknown {unknown})"
        )
    if not any(site["is_observed"] for site in sites):
        raise ValueError(
            f"expected an observed site in the model, got only latent sites {sorted(latent)}"
        )


def check_plates(model_trace: Trace, guide_trace: Trace) -> None:
    """Raise ``ValueError`` where only one program has a latent site in the plate of the data."""
    plate = data_plate(model_trace)
    guided = {site["name"]: site for site in stochastic_sites(guide_trace)}
    for site in stochastic_sites(model_trace):
        other = guided.get(site["name"])
        if other is not None and in_plate(site, plate) != in_plate(other, plate):
            where = _where(plate)
            model, guide = (_place(in_plate(s, plate)) for s in (site, other))
            raise ValueError(
                f"expected both programs to sample {site['name']!r} {where}, or neither, "
                f"got the model's {model} and the guide's {guide}"
            )


def _where(plate: Plate | None) -> str:
    return "in one plate" if plate is None else f"in plate {plate.name!r} at dim {plate.dim}"


def _place(inside: bool) -> str:
    return "inside" if inside else "outside"


class same_shapes(Messenger):
    """Raise ``ValueError`` where the guide draws a site in another shape than the model's."""

    def _pyro_post_sample(self, msg: Any) -> None:
        if msg["is_observed"] or site_is_subsample(msg):
            return
        expected = tuple(msg["fn"].batch_shape + msg["fn"].event_shape)
        got = tuple(msg["value"].shape)
        if expected != got:
            raise ValueError(
                f"expected the guide to draw site {msg['name']!r} in the model's shape {expected}, "
                f"got {got}"
            )


def check_support(model_trace: Trace) -> None:
    """Raise ``ValueError`` where an observed value is outside the support of its distribution."""
    for site in stochastic_sites(model_trace):
        if site["is_observed"] and not is_factor(site) and not _supported(site):
            value = site["value"]
            support = site["fn"].support
            raise ValueError(
                f"expected values of site {site['name']!r} in the support {support} of its "
                f"{base_name(site['fn'])}, got values in [{float(value.min()):g}, "
                f"{float(value.max()):g}]: choose a likelihood for this kind of data"
            )


def _supported(site: Site) -> bool:
    """Whether the observed values that count lie in the support."""
    inside = site["fn"].support.check(site["value"])
    mask = site["mask"]
    if mask is False:
        return True
    return bool((inside if mask is None or mask is True else inside | ~mask).all())


def check_summable(vectorized: bool, names: Iterable[str], modules: Iterable[nn.Module]) -> None:
    """Raise ``ValueError`` where sites cannot be summed out by copies of the rows."""
    if not vectorized:
        raise ValueError(
            f"expected programs that take copies of their rows, to sum out sites {sorted(names)}, "
            "got global sites, subsamples, or data that are no arguments"
        )
    for module in modules:
        for part in module.modules():
            if isinstance(part, _BatchNorm) and part.training:
                raise ValueError(
                    f"expected no {type(part).__name__} in train mode where sites {sorted(names)} "
                    "are summed out: all classes would count alike in its statistics"
                )


@contextmanager
def dtypes_explained(call: Call, modules: Iterable[nn.Module]) -> Iterator[None]:
    """Raise ``TypeError`` with a remedy where the data are of another type than the weights."""
    try:
        yield
    except RuntimeError as error:
        if not re.search(r"dtype|scalar type|type \(", str(error)):
            raise
        weights = (p.dtype for module in modules for p in module.parameters())
        floating = (dtype for dtype in weights if dtype.is_floating_point)
        expected = next(floating, torch.get_default_dtype())
        tensors = (leaf for leaf in pytree.tree_leaves(call) if isinstance(leaf, Tensor))
        got = next((x.dtype for x in tensors if x.dtype != expected), None)
        if got is None:
            raise
        methods = {torch.float32: "float()", torch.float64: "double()"}
        raise TypeError(
            f"expected data of dtype {expected}, as the weights are, got {got}: "
            f"convert with x.{methods.get(expected, f'to({expected})')}"
        ) from error
