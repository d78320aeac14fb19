"""What a pair of programs looks like on calls of one kind."""

import math
from dataclasses import dataclass

import torch
from pyro.poutine import Trace
from torch import Tensor

from .rows import Rows
from .sites import Plate, stochastic_sites

Values = dict[str, Tensor]
"""Latent values by site, (N, B, ...): copies and data first."""


@dataclass(frozen=True)
class Latent:
    """A latent site of the data plate: where its rows and its values lie."""

    event_dim: int
    plate_dim: int | None
    """None where there is no plate: one datum is all."""

    def to_rows(self, value: Tensor) -> Tensor:
        """(N, B, ...), copies and data first -> the site's own value, N B rows in the plate."""
        if self.plate_dim is None:
            return value[0, 0]
        rows = value.flatten(0, 1)
        missing = self.event_dim - self.plate_dim - rows.ndim  # plates inside, of size one
        rows = rows.reshape(len(rows), *[1] * missing, *rows.shape[1:])
        return _moved(rows, 0, self.plate_dim - self.event_dim)

    def from_rows(self, value: Tensor, copies: int) -> Tensor:
        """The site's own value -> (N, B, ...)."""
        if self.plate_dim is None:
            return value[None, None]
        rows = _moved(value, self.plate_dim - self.event_dim, 0)
        return rows.reshape(copies, -1, *rows.shape[1:])

    def to_draws(self, value: Tensor) -> Tensor:
        """The inverse of :meth:`from_draws`."""
        if self.plate_dim is None:
            return value.squeeze(1)
        return _moved(value, 1, self.plate_dim - self.event_dim)

    def from_draws(self, value: Tensor) -> Tensor:
        """K draws of the site's own shape, (K, ...) -> (K, B, ...)."""
        if self.plate_dim is None:
            return value.unsqueeze(1)
        return _moved(value, self.plate_dim - self.event_dim, 1)


def _moved(value: Tensor, source: int, destination: int) -> Tensor:
    """Return ``movedim``, or the same object where nothing moves.

    A flow keeps the log density of its last draw, for this object alone.
    """
    known = all(-value.ndim <= dim < value.ndim for dim in (source, destination))
    if known and (source - destination) % value.ndim == 0:
        return value
    moved = value.movedim(source, destination)
    same = moved.shape == value.shape and moved.stride() == value.stride()
    return value if same else moved


@dataclass(frozen=True)
class Structure:
    """What was found about a pair on calls of one kind."""

    plate: Plate | None
    """The data plate; None where one datum is all."""
    rows: Rows
    plate_size: int
    """How many data the plate had when it was looked at."""
    vectorized: bool
    """Whether copies of the rows are a run of their own; otherwise K draws are K runs."""
    subsampled: bool
    """Whether a plate draws its own subsample of the data."""
    whole: tuple[str, ...]
    """Global sites: those outside the data plate."""
    latents: dict[str, Latent]
    """The latent sites of the model in the data plate, and the guide's auxiliary ones."""
    single: bool
    """Whether the guide is one latent site and nothing else, whose distribution draws K values."""
    guide_values: dict[str, Tensor]
    """Sites of the guide that are summed out: their C values, (C, *event)."""
    model_values: dict[str, Tensor]
    """The same, of sites that the model alone has."""
    unmoved: dict[str, str]
    """The families of the guide's sites that have no reparameterised sampler, by site."""
    scored: frozenset[str]
    """The guide's sites whose draws carry no gradient, so that it needs their score."""
    relaxed: str | None
    """Why the guide's draws have no probability, as a sentence; None where they have one."""
    undrawn: str | None
    """Why the guide's draws have no density, as a sentence; None where they have one."""
    unweighable: str | None
    """Why a draw has no importance weight for each datum, as a sentence; None where it has."""
    refusal: str | None
    """Why there is no log p(x) for each datum, as a sentence; None where there is."""
    observed: int
    """How many numbers the model observes of one datum."""
    row_bytes: int
    """The largest tensors of one row, together, in bytes."""

    def shape(self, num_particles: int) -> tuple[int, ...]:
        """That of log-densities: (K, B), or (E, K, B) with E combinations to be summed out."""
        size = self.rows.size if self.plate is not None else 1
        lead = (self.guide_copies,) if self.guide_values else ()
        return (*lead, num_particles, size)

    def shared(self, num_particles: int) -> bool:
        """Whether K draws come from one run of the guide without copies: each datum seen once."""
        return self.single and num_particles > 1

    @property
    def guide_copies(self) -> int:
        """How many combinations of values the guide's summed sites have."""
        return math.prod(len(value) for value in self.guide_values.values())

    @property
    def model_copies(self) -> int:
        """How many combinations the sites have that only the model sums out."""
        return math.prod(len(value) for value in self.model_values.values())


def values_of(trace: Trace, found: Structure, copies: int) -> Values:
    """The values of a run's latent sites in the data plate, (N, B, ...)."""
    sites = [site for site in stochastic_sites(trace) if not site["is_observed"]]
    return {
        site["name"]: found.latents[site["name"]].from_rows(site["value"], copies)
        for site in sites
        if site["name"] in found.latents
    }


def whole_values(trace: Trace, found: Structure) -> dict[str, Tensor]:
    """The values of a run's global latent sites."""
    sites = [site for site in stochastic_sites(trace) if not site["is_observed"]]
    return {s["name"]: s["value"] for s in sites if s["name"] not in found.latents}


def stacked(traces: tuple[Trace, ...], found: Structure) -> Values:
    """The values of K runs, (K, B, ...)."""
    each = [values_of(trace, found, 1) for trace in traces]
    if len(each) == 1:
        return each[0]
    return {name: torch.cat([values[name] for values in each]) for name in each[0]}


def combinations(values: Values, inner: int, size: int) -> Values:
    """Every combination of C values (C, *event) of some sites, (E inner, B, *event).

    E is the product of the C; each combination stands ``inner`` times in turn, for all B data.
    """
    total = math.prod(len(value) for value in values.values())
    before = 1
    result = {}
    for name, value in values.items():
        after = total // (before * len(value))
        index = torch.arange(len(value), device=value.device)
        index = index.repeat_interleave(after * inner).repeat(before)
        rows = _in_graph(value)[index].unsqueeze(1)
        result[name] = rows.expand(len(index), size, *value.shape[1:])
        before *= len(value)
    return result


def _in_graph(value: Tensor) -> Tensor:
    """The same values; while a graph is made, as its own constant: it takes no other tensors."""
    if torch._guards.detect_fake_mode() is None:
        return value
    return torch.tensor(value.tolist(), dtype=value.dtype, device=value.device)
