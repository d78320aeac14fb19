"""Whether copies of the rows of a call are a run of their own: found by trying it."""

import pyro
import torch
from pyro import poutine
from pyro.poutine import Trace
from torch import Tensor

from .rows import Call
from .sites import Program, in_plate, log_prob, per_row, stochastic_sites
from .structure import Structure


def same_by_rows(model: Program, guide: Program, call: Call, found: Structure) -> bool:
    """Whether two copies of the rows give the log-probabilities of the call, twice.

    A program that closes over data of its own, or keeps parameters for each datum of a call, fails
    this. Where the log-probabilities of two equal runs differ (dropout), shapes alone decide.
    """
    if found.plate is None or found.subsampled or not found.rows.any:
        return False
    args, kwargs = call
    with pyro.validation_enabled(False), torch.no_grad():  # relaxed values have no density
        guide_trace = poutine.trace(guide).get_trace(*args, **kwargs)
        once = _scores(model, guide, call, guide_trace, found)
        try:
            doubled = _doubled(guide_trace, found)
            twice = _scores(model, guide, found.rows.copies(call, 2), doubled, found)
        except Exception:  # whatever a program raises for rows that it was not written for
            return False
        if any(len(b) != 2 * len(a) for a, b in zip(once, twice, strict=True)):
            return False
        if _close([torch.cat([a, a]) for a in once], twice):
            return True
        return not _close(once, _scores(model, guide, call, guide_trace, found))


def _scores(
    model: Program, guide: Program, call: Call, values: Trace, found: Structure
) -> list[Tensor]:
    """log p(x, z) and log q(z | x) of each row, at given values."""
    args, kwargs = call
    traces = [
        poutine.trace(poutine.replay(program, trace=values)).get_trace(*args, **kwargs)
        for program in (model, guide)
    ]
    sites = [stochastic_sites(trace) for trace in traces]
    local = [[site for site in each if in_plate(site, found.plate)] for each in sites]
    rows = [[per_row(log_prob(site, False), found.plate) for site in each] for each in local]
    return [sum(each[1:], start=each[0]) for each in rows if each]


def _doubled(guide_trace: Trace, found: Structure) -> Trace:
    """The same draws, each twice."""
    values = Trace()
    for site in stochastic_sites(guide_trace):
        if site["is_observed"]:
            continue
        value = site["value"]
        if site["name"] in found.latents:
            latent = found.latents[site["name"]]
            once = latent.from_rows(value, 1)
            value = latent.to_rows(torch.cat([once, once]))
        values.add_node(
            site["name"],
            name=site["name"],
            type="sample",
            value=value,
            is_observed=False,
            infer=site["infer"],
        )
    return values


def _close(first: list[Tensor], second: list[Tensor]) -> bool:
    pairs = zip(first, second, strict=True)
    return all(torch.allclose(a, b, rtol=1e-4, atol=1e-4, equal_nan=True) for a, b in pairs)
