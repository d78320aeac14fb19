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
from .sites import Site, differing_scales, is_factor
from .structure import Structure, Values, stacked


@dataclass(frozen=True)
class Draw:
    """K draws of the latents of B data, and their log-densities, each computed when asked for."""

    structure: Structure
    num_particles: int
    """K."""
    model_traces: tuple[Trace, ...]
    guide_traces: tuple[Trace, ...]
    """K runs of each program, or one on K copies of the rows."""
    given: Values | None = None
    """The latent values, where the runs of the guide do not hold them."""
    prior: Callable[[], Site] | None = None
    """Runs the model on the rows, without copies, up to its one latent site. It is given where the
    guide's one site ran without copies too, and its distribution drew the K values."""

    @cached_property
    def values(self) -> Values:
        """The latent values."""
        return stacked(self.guide_traces, self.structure) if self.given is None else self.given

    @cached_property
    def _models(self) -> scoring.Runs:
        return scoring.runs_of(self.model_traces, self.structure)

    @cached_property
    def _guides(self) -> scoring.Runs:
        return scoring.runs_of(self.guide_traces, self.structure)

    @property
    def _local(self) -> list[Site]:
        """The sites of the data plate, of one run of each program."""
        return [*self._models[0].local, *self._guides[0].local]

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

    @cached_property
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
    def log_guide(self) -> Term:
        """log q(z | x), of the guide's sites and its factors."""
        return self._of_guide(scaled=self.mixed)

    @cached_property
    def log_drawn(self) -> Term:
        """log q of the draws, whose gradient is the score.

        Neither scaled nor masked, as the draws were not, and without factors.
        """
        return self._of_guide(lambda site: not is_factor(site), masked=False)

    @cached_property
    def log_scored(self) -> Term | None:
        """As :attr:`log_drawn`, of the sites whose draws carry no gradient; None without any."""
        scored = self.structure.scored
        return self._of_guide(lambda s: s["name"] in scored, masked=False) if scored else None

    def _of_guide(
        self,
        wanted: Callable[[Site], bool] | None = None,
        scaled: bool = False,
        masked: bool = True,
    ) -> Term:
        """The log-probability of the guide's sites that are wanted."""
        if self.shared:
            (site,) = self._guides[0].local
            values = self.values[site["name"]]
            return Term(scoring.of_draws(site, values, self.structure, scaled, masked))
        runs = self._guides if wanted is None else scoring.select(self._guides, wanted)
        return scoring.total(runs, self.structure.plate, self.shape, scaled, masked)

    @cached_property
    def kl(self) -> Term:
        """log q(z | x) - log p(z), whose mean is KL(q(z | x) || p(z)).

        It lacks the gradient of log q of draws that carry none, whose mean is zero. Raises
        ``ValueError`` for relaxed draws, which have no probability.
        """
        if self.structure.relaxed is not None:
            raise ValueError(f"{self.structure.relaxed}: use TraceMeanField_ELBO")
        scored = self.structure.scored
        if not scored:
            return self.log_guide - self.log_prior
        fixed = self._of_guide(lambda site: site["name"] in scored, self.mixed).detached()
        if self.shared:
            return fixed - self.log_prior
        moving = self._of_guide(lambda site: site["name"] not in scored, self.mixed)
        return moving + fixed - self.log_prior

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
        self.check_no_factor()
        log_joint = self.log_likelihood.local + self.log_prior.local
        return scoring.log_weight(log_joint, self.log_guide.local, self.log_summed)

    def check_no_factor(self) -> None:
        """Raise ``ValueError`` where the guide has a factor."""
        if any(is_factor(site) for run in self._guides for site in run.all):
            raise ValueError(
                "expected no pyro.factor in the guide, got one: it is part of an ELBO and of no "
                "importance weight, use Trace_ELBO"
            )

    def over_latents(self, function: Callable[[Site, Site], Tensor]) -> Term:
        """The total of a function of each latent site in the guide, q, and in the model, p.

        ``function(q, p)`` is a number for each element of the site's batch.
        """
        models, shape = self._models, self.shape
        if self.prior is not None:  # the one site of each datum, for all draws
            models, shape = [scoring.Sites([self.prior()], [])], (1, self.shape[-1])
        plate = self.structure.plate
        term = scoring.latent_terms(models, self._guides, function, plate, shape, self.mixed)
        return term if self.prior is None else Term(term.local.expand(self.shape))

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

    def with_score_gradient(
        self, term: Term, log_score: Term | None = None, baseline: bool = False
    ) -> Term:
        """The same values; the gradient gains the score function of draws that carry none.

        E_q[f(z) d log q(z | x)] with f(z) the term of the datum, and of all for a global draw.
        ``log_score`` is log q of other draws. With a ``baseline`` the mean of f over the other
        draws is subtracted.
        Source: Ranganath, Gerrish & Blei, *Black Box Variational Inference*, 2014.
        """
        log_score = self.log_scored if log_score is None else log_score
        if log_score is None:
            return term
        signal = scoring.centred if baseline else torch.as_tensor
        value = term.detached()
        score = log_score - log_score.detached()
        whole = signal(value.whole)
        for_each = whole.unsqueeze(-1) if whole.ndim else whole
        everything = self.scale * self._over_classes(value.local).sum(-1) + value.whole
        return Term(
            term.local + (signal(value.local) + for_each / self.scale) * score.local,
            term.whole + signal(everything) * score.whole,
        )

    def _over_classes(self, local: Tensor) -> Tensor:
        """The exact expectation over the sites that are summed out."""
        return scoring.expectation(local, self.log_summed)


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
        return scoring.expectation(value, self.log_summed)
