"""From the sites of traces to log-densities per draw and datum.

The traces are K runs, or one run on K copies of the rows; ``shape`` is that of the result, (K, B),
or (E, K, B) where E combinations of the guide's values are summed out.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from pyro.poutine import Trace
from torch import Tensor

from .sites import (
    Plate,
    Site,
    in_plate,
    is_factor,
    is_observed,
    log_prob,
    per_row,
    scaled_and_masked,
    stochastic_sites,
)
from .structure import Structure

NEGLIGIBLE = 40.0
"""Terms below exp(-40) = 4e-18 times the largest one change no digit of a sum in float32."""


@dataclass(frozen=True)
class Term:
    """A quantity in nats: a number for each draw and datum, and one for each draw as a whole."""

    local: Tensor
    """(K, B); (E, K, B) where E combinations of the guide's values are summed out."""
    whole: Tensor | float = 0.0
    """Of global sites, those outside the data plate: (K,)."""

    def detached(self) -> "Term":
        """The same values without gradients."""
        whole = self.whole.detach() if isinstance(self.whole, Tensor) else self.whole
        return Term(self.local.detach(), whole)

    def __add__(self, other: "Term") -> "Term":
        return Term(self.local + other.local, self.whole + other.whole)

    def __sub__(self, other: "Term") -> "Term":
        return Term(self.local - other.local, self.whole - other.whole)

    def __rmul__(self, factor: Any) -> "Term":
        if isinstance(factor, float) and factor == 1:
            return self
        return Term(factor * self.local, factor * self.whole)


class Sites(NamedTuple):
    """The sites of a run."""

    local: list[Site]
    """Those of the data plate, one row per datum."""
    whole: list[Site]
    """The global ones."""

    @property
    def all(self) -> list[Site]:
        """Both together."""
        return [*self.local, *self.whole]


Runs = Sequence[Sites]
"""The sites of each run."""
Shape = tuple[int, ...]


def runs_of(traces: Sequence[Trace], found: Structure) -> Runs:
    """The sites of some traces."""
    runs = []
    for trace in traces:
        sites = Sites([], [])
        for site in stochastic_sites(trace):
            (sites.local if in_plate(site, found.plate) else sites.whole).append(site)
        runs.append(sites)
    return runs


def log_likelihood(runs: Runs, found: Structure, shape: Shape, scaled: bool = False) -> Term:
    """log p(x | z); of the model's own summed sites y, log sum_y p(x, y, z) - log sum_y p(y, z)."""
    if found.model_copies == 1:
        return total(select(runs, is_observed), found.plate, shape, scaled)
    full = (found.model_copies, *shape)
    joint = total(runs, found.plate, full, scaled)
    return Term(log_sum(joint.local), joint.whole) - log_prior(runs, found, shape, scaled)


def log_prior(runs: Runs, found: Structure, shape: Shape, scaled: bool = False) -> Term:
    """log p(z); of the model's own summed sites y, log sum_y p(y, z)."""
    latent = select(runs, lambda site: not is_observed(site))
    if found.model_copies == 1:
        return total(latent, found.plate, shape, scaled)
    term = total(latent, found.plate, (found.model_copies, *shape), scaled)
    return Term(log_sum(term.local), term.whole)


def guide_factors(runs: Runs, found: Structure, shape: Shape) -> Tensor | None:
    """The guide's factors for each draw and datum; None where it has none."""
    factors = select(runs, is_factor)
    found_any = any(run.all for run in factors)
    return total(factors, found.plate, shape).local if found_any else None


def log_summed(runs: Runs, found: Structure, shape: Shape) -> Tensor | None:
    """log q(y | x) of the sites that are summed out, (E, K, B): neither masked nor scaled."""
    if not found.guide_values:
        return None
    summed = select(runs, lambda site: site["name"] in found.guide_values)
    return total(summed, found.plate, shape, masked=False).local


def of_draws(
    site: Site, values: Tensor, found: Structure, scaled: bool = False, masked: bool = True
) -> Tensor:
    """log q of K values (K, B, ...) under the one distribution of a site, (K, B)."""
    at = found.latents[site["name"]].to_draws(values)
    value = log_prob(site, scaled, at) if masked else site["fn"].log_prob(at)
    if found.plate is None:
        return value.reshape(len(value), -1).sum(-1, keepdim=True)
    dims = [dim for dim in range(1 - value.ndim, 0) if dim != found.plate.dim]
    return value.sum(dims) if dims else value


def select(runs: Runs, wanted: Callable[[Site], bool]) -> Runs:
    """The sites of each run that are wanted."""
    return [Sites(*([site for site in part if wanted(site)] for part in run)) for run in runs]


def total(
    runs: Runs, plate: Plate | None, shape: Shape, scaled: bool = False, masked: bool = True
) -> Term:
    """The log-probability of the sites together: per datum in the data plate, and of the others.

    The scales of global sites always count; those of the others only with ``scaled``.
    """

    def value(site: Site, scaled: bool) -> Any:
        return log_prob(site, scaled) if masked else site["fn"].log_prob(site["value"])

    local: list[Tensor] = []
    whole: list[Tensor] = []
    for run in runs:
        local += [_sum([per_row(value(site, scaled), plate) for site in run.local])]
        whole += [_sum([value(site, True).sum() for site in run.whole])] if run.whole else []
    return Term(_shaped(local, shape), torch.stack(whole) if whole else 0.0)


def _sum(values: list[Tensor]) -> Tensor:
    return sum(values[1:], start=values[0]) if values else torch.zeros(1)


def _shaped(local: list[Tensor], shape: Shape) -> Tensor:
    """Per-row numbers of the runs in one tensor; zeros stand for no site at all."""
    size = torch.Size(shape).numel() // len(local)
    rows = [value if value.numel() == size else value.expand(size) for value in local]
    return (torch.cat(rows) if len(rows) > 1 else rows[0]).reshape(shape)


def latent_terms(
    models: Runs,
    guides: Runs,
    function: Callable[[Site, Site], Tensor],
    plate: Plate | None,
    shape: Shape,
    scaled: bool = False,
) -> Term:
    """The total of a function of each latent site in the guide, q, and in the model, p.

    ``function(q, p)`` is a number for each element of the site's batch. The guide's factors count.
    """
    local: list[Tensor] = []
    whole: list[Tensor] = []
    for model, guide in zip(models, guides, strict=True):
        sites = {site["name"]: site for site in model.all}

        def value(q: Site, scaled: bool, p: dict[str, Site] = sites) -> Tensor:
            term = q["fn"].log_factor if is_factor(q) else function(q, p[q["name"]])
            return scaled_and_masked(term, q, scaled)

        local += [_sum([per_row(value(q, scaled), plate) for q in guide.local])]
        whole += [_sum([value(q, True).sum() for q in guide.whole])] if guide.whole else []
    return Term(_shaped(local, shape), torch.stack(whole) if whole else 0.0)


def centred(value: Tensor | float) -> Tensor:
    """Of K values, (K, ...), each minus the mean of the others."""
    value = torch.as_tensor(value)
    return (value - value.mean(0)) * len(value) / (len(value) - 1) if value.ndim else value


def expectation(value: Tensor, log_summed: Tensor | None) -> Tensor:
    """The exact expectation over the sites that are summed out."""
    if log_summed is None:
        return value
    probability = log_summed.exp()
    return (probability * value.where(probability > 0, 0.0)).sum(0)


def log_weight(log_joint: Tensor, log_guide: Tensor, log_summed: Tensor | None) -> Tensor:
    """log w = log p(x, z) - log q(z | x), (K, B).

    Of E combinations y of the guide's summed values, w = sum_y p(x, y, z_y) / q(z_y | x, y).
    """
    if log_summed is None:
        return log_joint - log_guide
    return log_sum(log_joint - (log_guide - log_summed))


def log_sum(terms: Tensor) -> Tensor:
    """log sum_k exp(terms_k) over the first dimension, without the negligible terms.

    A gradient times a weight like exp(-100) is a subnormal number. With such numbers a step takes
    several times as long.
    """
    return terms.masked_fill(negligible(terms), -torch.inf).logsumexp(0)


def negligible(terms: Tensor) -> Tensor:
    """Which terms of :func:`log_sum` are left out; a NaN is not."""
    return terms < terms.detach().amax(0) - NEGLIGIBLE
