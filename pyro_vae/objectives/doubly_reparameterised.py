"""Objectives whose guide gradient acts through the draws alone: DReG and STL."""

from typing import Any, NamedTuple, Self, cast

import torch
from pyro import poutine
from pyro.infer.util import is_validation_enabled
from pyro.poutine import Trace
from torch import Tensor

from ..programs.checks import dtypes_explained
from ..programs.isolation import store_untouched
from ..programs.scoring import Terms, draw, terms, vectorized
from ..programs.sites import Program, densities, log_prob_sum, stochastic_sites
from .estimate import Estimate
from .importance_weighted import (
    ImportanceWeighted,
    check_reparameterised,
    common_scale,
    estimate,
    with_gradient,
)


class DReG(ImportanceWeighted):
    """The bound of :class:`IWAE`, with the doubly reparameterised gradient for the guide: its signal grows with K.

    With w~ = softmax(log w) the guide's gradient is sum_k w~_k^2 dlog w_k/dz_k dz_k/dphi: phi acts through the draws alone,
    not through log q(z | x). The model's gradient is IWAE's, sum_k w~_k dlog p(x, z_k)/dtheta.

    The guide runs twice, the second time without a backward pass: at its own draws, to differentiate log q(z | x) by z. So
    it must be deterministic given its draws (no dropout); BatchNorm sees the batch twice. A flow is inverted, which takes
    an inverse autoregressive one as many passes as it has dimensions.

    Source: Tucker et al., *Doubly Reparameterized Gradient Estimators for Monte Carlo Objectives*, 2018. Raises as IWAE.
    """

    def __call__(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> Estimate:
        """Return the estimate for a batch."""
        path = Path.of(model, guide, args, kwargs, self.num_particles, self.max_plate_nesting)
        weight = path.terms.log_weight.detach().softmax(0)
        gradient = path.log_weight(model=weight, guide=weight.square())
        return estimate(
            with_gradient(-self._bound(path.terms.log_weight), -gradient), path.terms, path.scale
        )


class STL(ImportanceWeighted):
    """Sticking the landing: the mean of K ELBOs, whose gradient vanishes where q(z | x) is the posterior.

    loss = -sum_b 1/K sum_k log w_kb, the guide's gradient 1/K sum_k dlog w_k/dz_k dz_k/dphi without the score of q, whose
    mean is zero. Costs and demands are those of :class:`DReG`, which for K = 1 is the same.

    Source: Roeder, Wu & Duvenaud, *Sticking the Landing*, 2017. Raises as IWAE.
    """

    def __call__(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> Estimate:
        """Return the estimate for a batch."""
        path = Path.of(model, guide, args, kwargs, self.num_particles, self.max_plate_nesting)
        weight = torch.full_like(path.terms.log_weight, 1 / self.num_particles)
        gradient = path.log_weight(model=weight, guide=weight)
        return estimate(
            with_gradient(-path.terms.log_weight.mean(0), -gradient), path.terms, path.scale
        )


class Path(NamedTuple):
    """Draws z and their terms, with the two ways in which parameters move log w taken apart.

    The model's parameters act at fixed z; the guide's through z, and not through log q at fixed z.
    """

    terms: Terms
    draws: dict[str, Tensor]
    """z, as functions of the guide's parameters."""
    leaves: dict[str, Tensor]
    """The same z as leaves, of which the terms are functions."""
    scale: Any

    @classmethod
    def of(
        cls,
        model: Program,
        guide: Program,
        args: Any,
        kwargs: Any,
        num_particles: int,
        nesting: int,
    ) -> Self:
        """Run the guide for its draws, then both programs at the draws, as a function of them."""
        with store_untouched(), dtypes_explained(args, kwargs, guide):
            first = poutine.trace(vectorized(guide, num_particles, nesting)).get_trace(
                *args, **kwargs
            )
        check_reparameterised(first, "IWAE")
        draws = {
            site["name"]: site["value"]
            for site in stochastic_sites(first)
            if not site["is_observed"]
        }
        with torch.enable_grad():
            leaves = {name: z.detach().requires_grad_() for name, z in draws.items()}
            traces = draw(
                model,
                poutine.replay(guide, trace=fixed(first, leaves)),
                args,
                kwargs,
                num_particles,
                nesting,
            )
            now = terms(*traces, scaled=False)
        if is_validation_enabled():
            check_deterministic(first, now.log_guide)
        return cls(now, draws, leaves, common_scale(*traces))

    def log_weight(self, *, model: Tensor, guide: Tensor) -> Tensor:
        """A scalar with the gradient of sum(model * log w) by the model's parameters, of sum(guide * log w) by the draws."""
        with torch.enable_grad():
            value = (guide * self.terms.log_weight).sum()
        scores = torch.autograd.grad(
            value, list(self.leaves.values()), retain_graph=True, materialize_grads=True
        )
        through_draws = [
            (score * z).sum() for score, z in zip(scores, self.draws.values(), strict=True)
        ]
        return (model * (self.terms.log_likelihood + self.terms.log_prior)).sum() + cast(
            Tensor, sum(through_draws)
        )


def check_deterministic(first: Trace, log_guide: Tensor) -> None:
    """Raise ``ValueError`` where the guide, run again at its own draws, scores them differently."""
    again = log_guide.detach().sum()
    once = log_prob_sum(densities(first), set(), scaled=False).detach().sum()
    if not torch.allclose(once, again, rtol=1e-3, atol=1e-2):
        raise ValueError(
            f"expected a guide that is deterministic given its draws, got log q = {float(once):g} and {float(again):g} for the same "
            "draws: use IWAE or Trace_ELBO with dropout or inner optimisation"
        )


def fixed(trace: Trace, values: dict[str, Tensor]) -> Trace:
    """The same trace with other values at some sites; flags and subsamples stay."""
    again = Trace()
    for name, site in trace.nodes.items():
        if site["type"] == "sample" and not site["is_observed"]:
            value = values.get(name, site["value"])
            again.add_node(
                name, name=name, type="sample", value=value, is_observed=False, infer=site["infer"]
            )
    return again
