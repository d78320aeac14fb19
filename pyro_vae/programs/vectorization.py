"""Whether copies of the rows of a call are a run of their own: found by trying it."""

from collections.abc import Sequence

import pyro
import torch
from pyro import poutine
from pyro.poutine import Trace
from torch import Tensor

from .rows import Call
from .sites import Program, in_plate, log_prob, per_row, stochastic_sites
from .structure import Structure


def same_by_rows(
    model: Program, guide: Program, call: Call, found: Structure, traces: tuple[Trace, Trace]
) -> bool:
    """Whether two copies of the rows give the log-probabilities of the call, twice.

    ``traces`` are the runs of model and guide that have shown the structure. A program that closes
    over data of its own, or keeps parameters for each datum of a call, fails this. Where the
    log-probabilities of two equal runs differ (dropout), shapes alone decide.
    """
    if found.plate is None or found.subsampled or not found.rows.any:
        return False
    with pyro.validation_enabled(False), torch.no_grad():  # relaxed values have no density
        drawn = _latent_values(*traces)  # the model's own ones too: they are fixed
        again = found.relaxed is not None  # the distributions of these traces validate values
        once = _scores(model, guide, call, drawn, found) if again else _log_probs(traces, found)
        try:
            doubled = _doubled(drawn, found)
            twice = _scores(model, guide, found.rows.copies(call, 2), doubled, found)
        except Exception:  # whatever a program raises for rows that it was not written for
            return False
        if any(len(b) != 2 * len(a) for a, b in zip(once, twice, strict=True)):
            return False
        if _close([torch.cat([a, a]) for a in once], twice):
            return True
        return not _close(once, _scores(model, guide, call, drawn, found))


def _scores(
    model: Program, guide: Program, call: Call, values: Trace, found: Structure
) -> list[Tensor]:
    """log p(x, z) and log q(z | x) of each row, at given values."""
    args, kwargs = call
    replayed = (poutine.trace(poutine.replay(p, trace=values)) for p in (model, guide))
    return _log_probs([trace.get_trace(*args, **kwargs) for trace in replayed], found)


def _log_probs(traces: Sequence[Trace], found: Structure) -> list[Tensor]:
    """The log-probability of each row, by trace."""
    sites = [stochastic_sites(trace) for trace in traces]
    local = [[site for site in each if in_plate(site, found.plate)] for each in sites]
    rows = [[per_row(log_prob(site, False), found.plate) for site in each] for each in local]
    return [sum(each[1:], start=each[0]) for each in rows if each]


def _latent_values(*traces: Trace) -> Trace:
    """The draws of the latent sites of traces, to be replayed."""
    values = Trace()
    for site in (site for trace in traces for site in stochastic_sites(trace)):
        if not site["is_observed"] and site["name"] not in values:
            node = {key: site[key] for key in ("name", "type", "value", "is_observed", "infer")}
            values.add_node(site["name"], **node)
    return values


def _doubled(drawn: Trace, found: Structure) -> Trace:
    """The same draws, each twice."""
    values = drawn.copy()
    for name, node in drawn.nodes.items():
        if name in found.latents:
            latent = found.latents[name]
            once = latent.from_rows(node["value"], 1)
            values.nodes[name] = node | {"value": latent.to_rows(torch.cat([once, once]))}
    return values


def _close(first: list[Tensor], second: list[Tensor]) -> bool:
    pairs = zip(first, second, strict=True)
    return all(torch.allclose(a, b, rtol=1e-4, atol=1e-4, equal_nan=True) for a, b in pairs)
