"""The evidence lower bound, with every term by Monte Carlo or with the KL in closed form."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.distributions import kl_divergence

from ..programs.checks import at_least
from ..programs.draw import Draw
from ..programs.pair import Pair
from ..programs.sites import (
    Site,
    base_name,
    differing_scales,
    is_factor,
    same_mask,
    stochastic_sites,
)
from .objective import Estimate, Objective, Schedule


@dataclass(frozen=True)
class _ELBO(Objective):
    """The arguments that the ELBOs share."""

    num_particles: int = 1
    beta: float | Tensor | Schedule = 1.0

    def __post_init__(self) -> None:
        at_least(1, num_particles=self.num_particles)
        if isinstance(self.beta, (int, float)):
            at_least(0, beta=self.beta)

    def at(self, step: int) -> Objective:
        """This objective at an optimisation step: a schedule of beta becomes its value there."""
        return replace(self, beta=self.beta(step)) if callable(self.beta) else self

    @property
    def _weight(self) -> float | Tensor:
        if callable(self.beta):
            raise TypeError(
                "expected beta to be a number, got a schedule: use objective.at(step), as SVI does"
            )
        return self.beta


class Trace_ELBO(_ELBO):
    """The evidence lower bound, with every term by Monte Carlo over ``num_particles`` = K draws.

    loss = -sum_b ( E_q[log p(x_b | z)] - beta E_q[log q(z | x_b) - log p(z)] )

    ``beta`` scales the latent sites of model and guide (beta-VAE, Higgins et al. 2017). It may be a
    schedule (:mod:`pyro_vae.objectives.schedules`). Latents without a reparameterised sampler get
    the score-function gradient (Ranganath et al., *Black Box Variational Inference*, 2014), with
    one signal per datum. Sites marked ``infer={"enumerate": "parallel"}`` are summed out exactly.

    Source: Kingma & Welling, *Auto-Encoding Variational Bayes*, 2013, equation 2.

    Raises ``ValueError`` for fewer than one particle or a negative beta.

    >>> Trace_ELBO().estimate(vae.model, vae.guide, torch.ones(3, 64)).loss.shape
    torch.Size([])
    """

    def score(self, pair: Pair, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Estimate:
        """Return the estimate of a pair on a call."""
        draw = pair.draw(args, kwargs, self.num_particles)
        elbo = draw.log_likelihood - self._weight * draw.kl
        return Estimate.of(draw, -draw.total(draw.with_score_gradient(elbo)))


class TraceMeanField_ELBO(_ELBO):
    """The evidence lower bound with its KL in closed form, site by site.

    loss = -sum_b ( E_q[log p(x_b | z)] - beta KL(q(z | x_b) || p(z)) )

    For two diagonal normals KL = -1/2 sum(1 + log s^2 - m^2 - s^2) (Kingma & Welling 2013, appendix
    B). A KL has the mask of the guide's site. The arguments are those of :class:`Trace_ELBO`.

    Raises ``TypeError`` where torch has no closed form. Raises ``ValueError`` where a site has
    another scale in the model than in the guide (Pyro's class takes the guide's for both), or where
    the guide does not draw the latent sites in the model's order (the KL of a site given its
    parents in the model would then depend on draws made after it): use :class:`Trace_ELBO`.
    """

    def score(self, pair: Pair, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Estimate:
        """Return the estimate of a pair on a call."""
        draw = pair.draw(args, kwargs, self.num_particles)
        check_order(draw)
        kl = draw.over_latents(closed_form_kl)
        elbo = draw.log_likelihood - self._weight * kl
        return Estimate.of(draw, -draw.total(draw.with_score_gradient(elbo)), kl)


def check_order(draw: Draw) -> None:
    """Raise ``ValueError`` unless the guide draws the model's latent sites in its order."""
    if draw.structure.model_values:
        raise ValueError(
            "expected a guide that draws every latent site, got "
            f"{sorted(draw.structure.model_values)} summed out of the model, whose prior then has "
            "no closed form: use Trace_ELBO"
        )
    model = draw.model_traces[0]
    guide = draw.guide_traces[0]
    latent = [site["name"] for site in stochastic_sites(model) if not site["is_observed"]]
    guided = [site["name"] for site in stochastic_sites(guide) if not is_factor(site)]
    if latent != guided:
        raise ValueError(
            f"expected the guide to draw the model's latent sites in its order {latent}, "
            f"got {guided}: use Trace_ELBO"
        )


def closed_form_kl(q: Site, p: Site) -> Tensor:
    """KL(q || p) of a site over its batch, given the draws of its parents."""
    if differing_scales([q, p]) and torch._guards.detect_fake_mode() is None:
        raise ValueError(
            f"expected one scale for a KL in closed form, got {q['scale']} in the guide and "
            f"{p['scale']} in the model at site {q['name']!r}: use Trace_ELBO"
        )
    if not same_mask(q, p):
        raise ValueError(
            "expected one mask for a KL in closed form, got another in the guide than in the "
            f"model at site {q['name']!r}: use Trace_ELBO"
        )
    try:
        return kl_divergence(q["fn"], p["fn"])
    except NotImplementedError as error:
        families = f"q = {base_name(q['fn'])} and p = {base_name(p['fn'])} at site {q['name']!r}"
        raise TypeError(
            f"expected families with a closed-form KL, got {families}: use Trace_ELBO"
        ) from error
