"""A draw z ~ q(z | x), scored by both programs: what every objective is made of.

log p(x | z), log p(z) and log q(z | x) for each of K draws and B data. Their combination
log p(x | z) + log p(z) - log q(z | x) is the log importance weight; its mean is the ELBO.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from pyro.poutine import Trace
from torch import Tensor

from .structure import Structure

Values = dict[str, Tensor]
"""Latent values by site, (N, B, ...): copies and data first."""


@dataclass(frozen=True)
class Term:
    """A quantity in nats: a number for each draw and datum, and one for each draw as a whole."""

    local: Tensor
    """(K, B); (E, K, B) where E combinations of the guide's values are summed out."""
    whole: Tensor | float = 0.0
    """Of global sites, those outside the data plate: (K,)."""

    def __add__(self, other: "Term") -> "Term":
        return Term(self.local + other.local, self.whole + other.whole)

    def __sub__(self, other: "Term") -> "Term":
        return Term(self.local - other.local, self.whole - other.whole)

    def __rmul__(self, factor: Any) -> "Term":
        return Term(factor * self.local, factor * self.whole)


@dataclass(frozen=True)
class Draw:
    """K draws of the latents of B data, and their log-densities."""

    log_likelihood: Term
    """log p(x | z), of the observed sites and the model's factors."""
    log_prior: Term
    """log p(z)."""
    log_guide: Term
    """log q(z | x), of the guide's sites and its factors."""
    log_score: Term | None
    """log q of the sites that have no reparameterised sampler: their gradient is a score."""
    scale: Any
    """The factor that all sites of the data plate share: N / B where B of N data are seen."""
    mixed: bool
    """Whether the sites differ in scale: then each term is scaled already, and ``scale`` is 1."""
    factors: Tensor | float
    """The guide's factors for each datum: part of an ELBO, and of no importance weight."""
    log_summed: Tensor | None
    """log q(y | x) of the guide's sites that are summed out, (E, K, B)."""
    structure: Structure
    model_traces: tuple[Trace, ...]
    guide_traces: tuple[Trace, ...]
    """K runs of each program, or one on K copies of the rows (the guide's perhaps without)."""
    values: Values
    """The latent values."""

    @property
    def num_particles(self) -> int:
        """K."""
        return self.log_prior.local.shape[-2]

    @property
    def kl(self) -> Term:
        """log q(z | x) - log p(z), whose mean is KL(q(z | x) || p(z))."""
        return self.log_guide - self.log_prior

    @property
    def log_weight(self) -> Tensor:
        """log w = log p(x, z) - log q(z | x), (K, B), unscaled; summed sites are summed out.

        Raises ``ValueError`` where no weight per datum exists: for global sites and for sites of
        different scales.
        """
        if self.structure.refusal is not None:
            raise ValueError(f"{self.structure.refusal}; use Trace_ELBO")
        if self.mixed:
            raise ValueError(
                "expected one scale for all sites, got several: importance weights are not "
                "annealed, use Trace_ELBO"
            )
        if isinstance(self.factors, Tensor):
            raise ValueError(
                "expected no pyro.factor in the guide, got one: it is part of an ELBO and of no "
                "importance weight, use Trace_ELBO"
            )
        log_joint = self.log_likelihood.local + self.log_prior.local
        return log_weight(log_joint, self.log_guide.local, self.log_summed)

    def mean(self, term: Term) -> Tensor:
        """The mean over the draws of a term for each datum, (B,), unscaled."""
        return self._over_classes(term.local).mean(0)

    def total(self, term: Term) -> Tensor:
        """The scaled sum over the data of the mean over the draws; global sites count once."""
        return self.scale * self.mean(term).sum() + torch.as_tensor(term.whole).mean()

    def with_score_gradient(self, term: Term) -> Term:
        """The same values; the gradient gains the score function of draws that carry none.

        E_q[f(z) d log q(z | x)] with f(z) the term of the datum, and of all for a global draw.
        Source: Ranganath, Gerrish & Blei, *Black Box Variational Inference*, 2014.
        """
        if self.log_score is None:
            return term
        local, whole = term.local.detach(), torch.as_tensor(term.whole).detach()
        zero_local, zero_whole = (v - v.detach() for v in _tensors(self.log_score))
        everything = self.scale * self._over_classes(local).sum(-1) + whole
        scaled_whole = (whole / self.scale).unsqueeze(-1) if whole.ndim else whole / self.scale
        return Term(
            term.local + (local + scaled_whole) * zero_local,
            term.whole + everything * zero_whole,
        )

    def _over_classes(self, local: Tensor) -> Tensor:
        """The exact expectation over the sites that are summed out."""
        if self.log_summed is None:
            return local
        probability = self.log_summed.exp()
        return (probability * local.where(probability > 0, 0.0)).sum(0)


def _tensors(term: Term) -> tuple[Tensor, Tensor]:
    return term.local, torch.as_tensor(term.whole)


class Sample(NamedTuple):
    """K draws of the guide alone, without gradients through factors."""

    values: Values
    log_guide: Tensor
    """log q(z | x) without factors, (K, B), or (E, K, B)."""
    log_summed: Tensor | None
    """As in :class:`Draw`."""


def log_weight(log_joint: Tensor, log_guide: Tensor, log_summed: Tensor | None) -> Tensor:
    """log w = log p(x, z) - log q(z | x), (K, B).

    Of E combinations y of the guide's summed values, w = sum_y p(x, y, z_y) / q(z_y | x, y).
    """
    if log_summed is None:
        return log_joint - log_guide
    return (log_joint - (log_guide - log_summed)).logsumexp(0)
