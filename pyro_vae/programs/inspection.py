"""The structure of a pair, found by running it on a call."""

from dataclasses import replace
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.poutine import Trace
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from .checks import check_pair, same_shapes
from .refusals import why_relaxed, why_undrawn, why_unreportable, why_unweighable
from .rows import Call, Rows
from .sites import (
    Plate,
    Program,
    Site,
    base_name,
    data_plate,
    in_plate,
    is_factor,
    is_marked,
    stochastic_sites,
)
from .structure import Latent, Structure
from .vectorization import same_by_rows

MAX_COPIES = 1024
"""The most combinations of values of sites that are summed out."""


def inspect(model: Program, guide: Program, call: Call, rows: Rows | None = None) -> Structure:
    """Run both programs on a call, check them, and find their structure.

    Raises ``ValueError`` where the programs do not belong together, or too many combinations of
    values are to be summed out.
    """
    args, kwargs = call
    with pyro.validation_enabled(True), torch.no_grad(), _Sizes() as sizes:
        guide_trace = poutine.trace(guide).get_trace(*args, **kwargs)
        with same_shapes():
            replayed = poutine.replay(model, trace=guide_trace)
            model_trace = poutine.trace(replayed).get_trace(*args, **kwargs)
    check_pair(model_trace, guide_trace)
    plate = data_plate(model_trace)
    size = _num_rows(model_trace, plate)
    if plate is None:
        rows = Rows.none(call)
    elif rows is None:
        rows = Rows.of(call, size)
    found = _structure(model_trace, guide_trace, plate, rows, size)
    copies = max(found.guide_copies, found.model_copies)
    if copies > MAX_COPIES:
        raise ValueError(
            f"expected at most {MAX_COPIES} combinations of values to sum out, got {copies}: "
            "mark fewer sites for enumeration"
        )
    return replace(
        found,
        vectorized=same_by_rows(model, guide, call, found, (model_trace, guide_trace)),
        row_bytes=max(sizes.bytes // size, found.row_bytes),
    )


def _structure(
    model_trace: Trace, guide_trace: Trace, plate: Plate | None, rows: Rows, size: int
) -> Structure:
    """The structure that two traces show."""
    of_model = stochastic_sites(model_trace)
    of_guide = stochastic_sites(guide_trace)
    sites = [*of_model, *of_guide]
    nodes = [*model_trace.nodes.values(), *guide_trace.nodes.values()]
    whole = tuple(dict.fromkeys(s["name"] for s in sites if not in_plate(s, plate)))
    guided = {site["name"] for site in of_guide}
    summed = _summed(of_guide, plate)
    observed = _observed(model_trace, plate, size)
    return Structure(
        plate=plate,
        rows=rows,
        plate_size=size,
        vectorized=False,
        subsampled=any(_subsamples(node) for node in nodes),
        whole=whole,
        latents=_latents(sites, plate),
        single=_is_single(guide_trace, plate),
        guide_values=summed,
        model_values=_summed([s for s in of_model if s["name"] not in guided], plate),
        unmoved=_unmoved(guide_trace),
        scored=frozenset(s["name"] for s in of_guide if not s["fn"].has_rsample) - summed.keys(),
        relaxed=why_relaxed(guide_trace),
        undrawn=why_undrawn(guide_trace, plate),
        unweighable=why_unweighable(guide_trace, plate, whole),
        refusal=why_unreportable(model_trace, guide_trace, plate, whole, rows, size),
        observed=observed,
        row_bytes=max(4 * observed, 1),
    )


def _num_rows(model_trace: Trace, plate: Plate | None) -> int:
    """The size of the data plate, from an observed site's batch."""
    if plate is None:
        return 1
    for site in stochastic_sites(model_trace):
        if site["is_observed"] and in_plate(site, plate):
            shape = site["fn"].log_prob(site["value"]).shape
            if len(shape) >= -plate.dim:
                return max(int(shape[plate.dim]), 1)
    frames = [f for s in stochastic_sites(model_trace) for f in s["cond_indep_stack"]]
    return max(next(int(f.size) for f in frames if Plate(f.name, f.dim) == plate), 1)


def _latents(sites: list[Site], plate: Plate | None) -> dict[str, Latent]:
    dim = None if plate is None else plate.dim
    return {
        site["name"]: Latent(site["fn"].event_dim, dim)
        for site in sites
        if not site["is_observed"] and in_plate(site, plate)
    }


def _is_single(guide_trace: Trace, plate: Plate | None) -> bool:
    sites = stochastic_sites(guide_trace)
    if len(sites) != 1 or sites[0]["is_observed"]:  # a factor is observed
        return False
    return in_plate(sites[0], plate) and not is_marked(sites[0])


def _summed(sites: list[Site], plate: Plate | None) -> dict[str, Tensor]:
    """The values of the sites marked to be summed out."""
    return {site["name"]: _values(site, plate) for site in sites if is_marked(site)}


def _values(site: Site, plate: Plate | None) -> Tensor:
    """The C values of a discrete site, (C, *event)."""
    fn = site["fn"]
    name = site["name"]
    stack = [f for f in site["cond_indep_stack"] if f.vectorized]
    if plate is None or len(stack) != 1 or not in_plate(site, plate):
        raise ValueError(
            f"expected site {name!r}, which is marked for enumeration, in the plate of the data "
            f"alone, got {len(stack)} plates"
        )
    try:
        values: Tensor = fn.enumerate_support(expand=False)
    except (NotImplementedError, AttributeError) as error:
        raise ValueError(
            f"expected a family with finitely many values at site {name!r}, which is marked for "
            f"enumeration, got {base_name(fn)}"
        ) from error
    return values.reshape(len(values), *fn.event_shape)


def _unmoved(guide_trace: Trace) -> dict[str, str]:
    sites = [s for s in stochastic_sites(guide_trace) if not s["is_observed"]]
    return {s["name"]: base_name(s["fn"]) for s in sites if not s["fn"].has_rsample}


def _observed(model_trace: Trace, plate: Plate | None, size: int) -> int:
    sites = [s for s in stochastic_sites(model_trace) if s["is_observed"] and not is_factor(s)]
    local: int = sum(s["value"].numel() for s in sites if in_plate(s, plate))
    return local // max(size, 1)


def _subsamples(site: Any) -> bool:
    """Whether a plate stands for more data than it has: it subsamples, or was given a subsample."""
    if site["type"] == "sample" and site_is_subsample(site):
        fn = site["fn"]
        return bool(len(site["value"]) < fn.size)
    return False


class _Sizes:
    """Measures the largest outputs of the modules that run inside."""

    def __enter__(self) -> "_Sizes":
        self.bytes = 0
        self._hook = torch.nn.modules.module.register_module_forward_hook(self._look)
        return self

    def _look(self, module: Any, args: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            self.bytes = max(self.bytes, output.numel() * output.element_size())

    def __exit__(self, *error: object) -> None:
        self._hook.remove()
