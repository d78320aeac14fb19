"""The evidence lower bound, by Monte Carlo or with its KL in closed form."""

from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from pyro.distributions.util import scale_and_mask
from pyro.poutine import Trace
from torch import Tensor
from torch.distributions import kl_divergence

from ..programs.scoring import draw, terms
from ..programs.sites import (
    Program,
    base_name,
    data_dim,
    log_prob_sum,
    particle_dim,
    score_sum,
    stochastic_sites,
    sum_but,
)
from .estimate import Estimate, Objective, Schedule


@dataclass(frozen=True)
class _ELBO:
    """The arguments that the ELBOs share."""

    num_particles: int = 1
    beta: float | Tensor | Schedule = 1.0
    max_plate_nesting: int = 1

    def __post_init__(self) -> None:
        if self.num_particles < 1:
            raise ValueError(f"expected num_particles of at least 1, got {self.num_particles}")
        if isinstance(self.beta, (int, float)) and self.beta < 0:
            raise ValueError(f"expected beta of at least 0, got {self.beta}")

    def __call__(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> Estimate:
        raise NotImplementedError

    def at(self, step: int) -> Objective:
        """This objective at an optimisation step: a schedule of beta becomes its value there."""
        return replace(self, beta=self.beta(step)) if callable(self.beta) else self

    def _draw(self, model: Program, guide: Program, args: Any, kwargs: Any) -> tuple[Trace, Trace]:
        if callable(self.beta):
            raise TypeError(
                "expected beta to be a number, got a schedule: use objective.at(step), as SVI does"
            )
        num_particles = self.num_particles if self.num_particles > 1 else None
        return draw(model, guide, args, kwargs, num_particles, self.max_plate_nesting)


class Trace_ELBO(_ELBO):
    """The evidence lower bound, every term by Monte Carlo over ``num_particles`` = K draws z ~ q(z | x).

    loss = -sum_b ( E_q[log p(x_b | z)] - beta E_q[log q(z | x_b) - log p(z)] )

    ``beta`` scales the latent sites of model and guide alike (beta-VAE, Higgins et al. 2017); a schedule of it
    (:mod:`pyro_vae.objectives.schedules`) anneals. Latents without a reparameterised sampler get the score-function gradient
    (Ranganath et al., *Black Box Variational Inference*, 2014), with one signal per datum. ``max_plate_nesting`` is the
    depth of the programs' plates, needed for K > 1 only.

    Source: Kingma & Welling, *Auto-Encoding Variational Bayes*, 2013, equation 2.

    Raises ``ValueError`` for fewer than one particle or a negative beta.
    """

    def __call__(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> Estimate:
        """Return the estimate for a batch."""
        traces = self._draw(model, guide, args, kwargs)
        log_likelihood, log_prior, log_guide = terms(*traces)
        kl = log_guide - log_prior
        beta = cast(Any, self.beta)
        elbo = log_likelihood - (kl if isinstance(beta, float) and beta == 1 else beta * kl)
        loss = -_with_score_gradient(elbo, *traces).sum()
        estimate = Estimate(loss, log_likelihood.detach().sum(), kl.detach().sum())
        return (
            estimate
            if self.num_particles == 1
            else Estimate(*(value / self.num_particles for value in estimate))
        )


def _with_score_gradient(elbo: Tensor, model_trace: Trace, guide_trace: Trace) -> Tensor:
    """The same value; its gradient gains elbo * d log q(z | x) for the draws z that carry no gradient themselves."""
    scored = [site for site in stochastic_sites(guide_trace) if not site["fn"].has_rsample]
    if not scored:
        return elbo
    keep = {particle_dim(guide_trace), data_dim(model_trace, guide_trace)}
    log_q = score_sum(scored, keep)
    return elbo + elbo.detach() * (log_q - log_q.detach())


class TraceMeanField_ELBO(_ELBO):
    """The evidence lower bound with its KL in closed form, site by site.

    loss = -sum_b ( E_q[log p(x_b | z)] - beta KL(q(z | x_b) || p(z)) )

    For two diagonal normals KL = -1/2 sum(1 + log s^2 - m^2 - s^2) (Kingma & Welling 2013, appendix B). The other
    arguments are those of :class:`Trace_ELBO`.

    Raises ``TypeError`` where torch knows no closed form, or a site is not reparameterised, and ``ValueError`` where the
    guide does not draw the latent sites in the model's order (the KL of a site given its parents in the model would then
    depend on draws made after it): use :class:`Trace_ELBO`.
    """

    def __call__(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> Estimate:
        """Return the estimate for a batch."""
        model_trace, guide_trace = self._draw(model, guide, args, kwargs)
        keep = {particle_dim(guide_trace), data_dim(model_trace, guide_trace)}
        observed = (site for site in stochastic_sites(model_trace) if site["is_observed"])
        log_likelihood = log_prob_sum(observed, keep).sum() / self.num_particles
        kl = _analytic_kl(model_trace, guide_trace).sum() / self.num_particles
        loss = cast(Tensor, self.beta) * kl - log_likelihood
        return Estimate(loss, log_likelihood.detach(), kl.detach())


def _analytic_kl(model_trace: Trace, guide_trace: Trace) -> Tensor:
    """KL(q || p) summed over the latent sites, given the draws of their parents."""
    check_analytic(model_trace, guide_trace)
    keep = {particle_dim(guide_trace), data_dim(model_trace, guide_trace)}
    total = []
    for site in stochastic_sites(guide_trace):
        q, p = site["fn"], model_trace.nodes[site["name"]]["fn"]
        families = f"q = {base_name(q)} and p = {base_name(p)} at site {site['name']!r}"
        try:
            kl = kl_divergence(q, p)
        except NotImplementedError as error:
            raise TypeError(
                f"expected families with a closed-form KL, got {families}: use Trace_ELBO"
            ) from error
        total.append(sum_but(scale_and_mask(kl, site["scale"], site["mask"]), keep))
    return sum(total[1:], start=total[0]) if total else torch.zeros(())


def check_analytic(model_trace: Trace, guide_trace: Trace) -> None:
    """Raise where the KL of a pair is not the sum of its sites' closed forms: another order, draws without a gradient."""
    latent = [site["name"] for site in stochastic_sites(model_trace) if not site["is_observed"]]
    guided = [site["name"] for site in stochastic_sites(guide_trace)]
    if latent != guided:
        raise ValueError(
            f"expected the guide to draw the model's latent sites in its order {latent}, got {guided}: use Trace_ELBO"
        )
    for site in stochastic_sites(guide_trace):
        if not site["fn"].has_rsample:
            families = f"{base_name(site['fn'])} at site {site['name']!r}"
            raise TypeError(
                f"expected a reparameterised guide for the analytic KL, got q = {families}: use Trace_ELBO"
            )
