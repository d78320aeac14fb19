"""A draw z ~ q(z | x), scored by both programs: what every objective is made of.

log p(x | z), log p(z) and log q(z | x) for each of K draws and B data. Their combination
log p(x | z) + log p(z) - log q(z | x) is the log importance weight; its mean is the ELBO.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from pyro.poutine import Trace
from torch import Tensor

from . import scoring
from .scoring import Term
from .sites import Site, differing_scales, in_plate, is_factor, stochastic_sites
from .structure import Structure

Values = dict[str, Tensor]
"""Latent values by site, (N, B, ...): copies and data first."""


@dataclass(frozen=True)
class Draw:
    """K draws of the latents of B data, and their log-densities, each computed when asked for."""

    structure: Structure
    num_particles: int
    """K."""
    model_traces: tuple[Trace, ...]
    guide_traces: tuple[Trace, ...]
    """K runs of each program, or one on K copies of the rows."""
    values: Values
    """The latent values."""
    prior: Callable[[], Site] | None = None
    """Runs the model on the rows, without copies, up to its one latent site. It is given where the
    guide's one site ran without copies too, and its distribution drew the K values."""
    ungated: bool = False
    """Whether log q keeps the gradient of sites without a reparameterised sampler."""

    @cached_property
    def _models(self) -> scoring.Runs:
        return [stochastic_sites(trace) for trace in self.model_traces]

    @cached_property
    def _guides(self) -> scoring.Runs:
        return [stochastic_sites(trace) for trace in self.guide_traces]

    @cached_property
    def _local(self) -> list[Site]:
        """The sites of the data plate, of one run of each program."""
        sites = [*self._models[0], *self._guides[0]]
        return [site for site in sites if in_plate(site, self.structure.plate)]

    @cached_property
    def _differing(self) -> tuple[Site, Site] | None:
        return differing_scales(self._local)

    @property
    def mixed(self) -> bool:
        """Whether the sites differ in scale: then each term is scaled, and ``scale`` is 1."""
        return self._differing is not None

    @property
    def scale(self) -> Any:
        """The factor that all sites of the data plate share: N / B where B of N data are seen."""
        return 1.0 if self.mixed or not self._local else self._local[0]["scale"]

    @property
    def shared(self) -> bool:
        """Whether the guide ran once, without copies, and its distribution drew the K values."""
        return self.prior is not None

    @property
    def shape(self) -> tuple[int, ...]:
        """That of log-densities: (K, B), or (E, K, B) with E combinations summed out."""
        return self.structure.shape(self.num_particles)

    @cached_property
    def log_likelihood(self) -> Term:
        """log p(x | z), of the observed sites and the model's factors."""
        return scoring.log_likelihood(self._models, self.structure, self.shape, self.mixed)

    @cached_property
    def log_prior(self) -> Term:
        """log p(z)."""
        return scoring.log_prior(self._models, self.structure, self.shape, self.mixed)

    @cached_property
    def _guide_terms(self) -> tuple[Term, Term | None]:
        if not self.shared:
            return scoring.guide_terms(
                self._guides, self.structure, self.shape, self.mixed, self.ungated
            )
        (site,) = self._guides[0]
        values = self.values[site["name"]]
        log_guide = Term(scoring.of_draws(site, values, self.structure, self.mixed))
        if self.ungated or site["fn"].has_rsample:
            return log_guide, None
        score = Term(scoring.of_draws(site, values, self.structure, masked=False))
        return Term(log_guide.local.detach()), score

    @property
    def log_guide(self) -> Term:
        """log q(z | x), of the guide's sites and its factors."""
        return self._guide_terms[0]

    @cached_property
    def log_drawn(self) -> Tensor:
        """log q of the draws, (K, B), whose gradient is the score.

        Neither scaled nor masked, as the draws were not, and without factors.
        """
        if not self.shared:
            runs = scoring.select(self._guides, lambda site: not is_factor(site))
            return scoring.total(runs, self.structure.plate, self.shape, masked=False).local
        (site,) = self._guides[0]
        return scoring.of_draws(site, self.values[site["name"]], self.structure, masked=False)

    @cached_property
    def kl(self) -> Term:
        """log q(z | x) - log p(z), whose mean is KL(q(z | x) || p(z)).

        Raises ``ValueError`` for relaxed draws, which have no probability.
        """
        if self.structure.relaxed is not None:
            raise ValueError(f"{self.structure.relaxed}: use TraceMeanField_ELBO")
        return self.log_guide - self.log_prior

    @cached_property
    def factors(self) -> Tensor | None:
        """The guide's factors for each datum: part of an ELBO, and of no importance weight."""
        return scoring.guide_factors(self._guides, self.structure, self.shape)

    @cached_property
    def log_summed(self) -> Tensor | None:
        """log q(y | x) of the guide's sites that are summed out, (E, K, B)."""
        return scoring.log_summed(self._guides, self.structure, self.shape)

    @property
    def log_weight(self) -> Tensor:
        """log w = log p(x, z) - log q(z | x), (K, B), unscaled; summed sites are summed out.

        Raises ``ValueError`` where no weight per datum exists: for global sites, for sites of
        different scales, and for factors of the guide.
        """
        if self.structure.unweighable is not None:
            raise ValueError(f"{self.structure.unweighable}; use Trace_ELBO")
        if self._differing is not None:
            first, other = (f"{s['scale']} at {s['name']!r}" for s in self._differing)
            raise ValueError(
                f"expected one scale for all sites, got {first} and {other}: importance weights "
                "are not annealed, use Trace_ELBO"
            )
        if self.factors is not None:
            raise ValueError(
                "expected no pyro.factor in the guide, got one: it is part of an ELBO and of no "
                "importance weight, use Trace_ELBO"
            )
        log_joint = self.log_likelihood.local + self.log_prior.local
        return log_weight(log_joint, self.log_guide.local, self.log_summed)

    def over_latents(self, function: Callable[[Site, Site], Tensor]) -> Term:
        """The total of a function of each latent site in the guide, q, and in the model, p.

        ``function(q, p)`` is a number for each element of the site's batch.
        """
        plate = self.structure.plate
        if self.prior is None:
            return scoring.latent_terms(
                self._models, self._guides, function, plate, self.shape, self.mixed
            )
        shape = (1, self.shape[-1])
        runs = [[self.prior()]], self._guides
        local = scoring.latent_terms(*runs, function, plate, shape, self.mixed).local
        return Term(local.expand(self.shape))

    def mean(self, term: Term) -> Tensor:
        """The mean over the draws of a term for each datum, (B,), unscaled."""
        return self._over_classes(term.local).mean(0)

    def total(self, term: Term) -> Tensor:
        """The scaled sum over the data of the mean over the draws; global sites count once."""
        mean = self._over_classes(term.local).sum()
        mean = mean if self.num_particles == 1 else mean / self.num_particles
        total: Tensor = mean if self._unscaled else self.scale * mean
        return total + term.whole.mean() if isinstance(term.whole, Tensor) else total

    @cached_property
    def _unscaled(self) -> bool:
        """Whether the scale is the number one, by which nothing is multiplied."""
        return not isinstance(self.scale, Tensor) and self.scale == 1

    def with_score_gradient(self, term: Term) -> Term:
        """The same values; the gradient gains the score function of draws that carry none.

        E_q[f(z) d log q(z | x)] with f(z) the term of the datum, and of all for a global draw.
        Source: Ranganath, Gerrish & Blei, *Black Box Variational Inference*, 2014.
        """
        log_score = self._guide_terms[1]
        if log_score is None:
            return term
        local = term.local.detach()
        whole = torch.as_tensor(term.whole).detach()
        of_local = log_score.local - log_score.local.detach()
        of_whole = torch.as_tensor(log_score.whole)
        everything = self.scale * self._over_classes(local).sum(-1) + whole
        for_each = whole.unsqueeze(-1) if whole.ndim else whole
        return Term(
            term.local + (local + for_each / self.scale) * of_local,
            term.whole + everything * (of_whole - of_whole.detach()),
        )

    def _over_classes(self, local: Tensor) -> Tensor:
        """The exact expectation over the sites that are summed out."""
        return expectation(local, self.log_summed)


class Sample(NamedTuple):
    """K draws of the guide alone, without gradients through factors."""

    values: Values
    log_guide: Tensor
    """log q(z | x) without factors, (K, B), or (E, K, B)."""
    log_summed: Tensor | None
    """As in :class:`Draw`."""
    subsample: Values
    """The rows that plates have chosen themselves, by name."""

    def expectation(self, value: Tensor) -> Tensor:
        """The exact expectation over the summed sites, (E, K, B) -> (K, B)."""
        return expectation(value, self.log_summed)


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
    return (log_joint - (log_guide - log_summed)).logsumexp(0)
