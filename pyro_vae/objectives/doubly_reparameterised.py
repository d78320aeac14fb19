"""Objectives whose gradient of the guide goes through the draws only: DReG and STL.

For draws z(phi), d log w / dphi has two parts: through z, and through log q(. | x) at fixed z.
In an ELBO the second part has mean zero and only adds noise.
"""

from typing import Any, NamedTuple, Self

import torch
from pyro.infer.util import is_validation_enabled
from torch import Tensor

from ..programs.draw import Draw
from ..programs.pair import Pair
from ..programs.structure import Values
from .importance_weighted import (
    ImportanceWeighted,
    bound,
    check_moving,
    check_unsummed,
    normalised,
    with_gradient,
)
from .objective import Estimate


class DReG(ImportanceWeighted):
    """The bound of IWAE with the doubly reparameterised gradient.

    With w~ = softmax(log w) the guide's gradient is sum_k w~_k^2 dlog w_k/dz_k dz_k/dphi: phi acts
    through the draws only. Its signal-to-noise ratio grows with K. The model's gradient is that of
    IWAE, sum_k w~_k dlog p(x, z_k)/dtheta.

    The guide runs twice, the second time at its own draws, to differentiate log q(z | x) by z. So
    it must be deterministic given its draws (no dropout), and BatchNorm sees the batch twice. A
    flow is inverted; an inverse autoregressive flow needs one pass per dimension for this.

    Source: Tucker et al., *Doubly Reparameterized Gradient Estimators for Monte Carlo Objectives*,
    2018. Raises as :class:`pyro_vae.objectives.IWAE`.
    """

    def score(self, pair: Pair, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Estimate:
        """Return the estimate of a pair on a call."""
        path = Path.of(pair, args, kwargs, self.num_particles)
        log_weight = path.draw.log_weight
        weight = normalised(log_weight)
        gradient = path.log_weight(model=weight, guide=weight.square())
        loss = with_gradient(-bound(log_weight).sum(), -gradient)
        return Estimate.of(path.draw, path.draw.scale * loss)


class STL(ImportanceWeighted):
    """Sticking the landing: the mean of K ELBOs, whose gradient vanishes at the posterior.

    loss = -sum_b 1/K sum_k log w_kb

    The guide's gradient is 1/K sum_k dlog w_k/dz_k dz_k/dphi, without the score of q, whose mean is
    zero. Cost and requirements are those of :class:`DReG`, which is the same for K = 1.

    Source: Roeder, Wu & Duvenaud, *Sticking the Landing*, 2017. Raises as
    :class:`pyro_vae.objectives.IWAE`.
    """

    def score(self, pair: Pair, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Estimate:
        """Return the estimate of a pair on a call."""
        path = Path.of(pair, args, kwargs, self.num_particles)
        log_weight = path.draw.log_weight
        weight = torch.full_like(log_weight, 1 / self.num_particles)
        gradient = path.log_weight(model=weight, guide=weight)
        loss = with_gradient(-log_weight.mean(0).sum(), -gradient)
        return Estimate.of(path.draw, path.draw.scale * loss)


class Path(NamedTuple):
    """A draw that separates the gradient of log w through z from the gradient at fixed z.

    The model's parameters act at fixed z. The guide's parameters act through z only.
    """

    draw: Draw
    """Scored at ``leaves``."""
    drawn: Values
    """z, as functions of the guide's parameters."""
    leaves: Values
    """The same z as leaves; the log-densities are functions of them."""

    @classmethod
    def of(
        cls, pair: Pair, args: tuple[Any, ...], kwargs: dict[str, Any], num_particles: int
    ) -> Self:
        """Run the guide to draw z, then score z by both programs as functions of z."""
        found = pair.structure((args, kwargs))
        check_unsummed(found)
        check_moving(found, "IWAE")
        sample = pair.sample((args, kwargs), num_particles)
        with torch.enable_grad():
            leaves = {name: z.detach().requires_grad_() for name, z in sample.values.items()}
            draw = pair.at(args, kwargs, leaves, num_particles, sample.subsample)
            draw.log_weight  # noqa: B018  # computed here, with its gradient
        if is_validation_enabled():
            check_deterministic(sample.log_guide, draw.log_guide.local)
        return cls(draw, sample.values, leaves)

    def log_weight(self, *, model: Tensor, guide: Tensor) -> Tensor:
        """A scalar with two gradients, for weights (K, B).

        For the model's parameters its gradient is that of sum(model * log w), for the draws that of
        sum(guide * log w).
        """
        with torch.enable_grad():
            value = (guide * self.draw.log_weight).sum()
        leaves = list(self.leaves.values())
        scores = torch.autograd.grad(value, leaves, retain_graph=True, materialize_grads=True)
        drawn = zip(scores, self.drawn.values(), strict=True)
        log_joint = self.draw.log_likelihood.local + self.draw.log_prior.local
        through_model = (model * log_joint).sum()
        return sum(((score * z).sum() for score, z in drawn), start=through_model)


def check_deterministic(once: Tensor, again: Tensor) -> None:
    """Raise ``ValueError`` where the guide, run again at its own draws, scores them differently."""
    if not torch.allclose(once.detach(), again.detach(), rtol=1e-3, atol=1e-2):
        raise ValueError(
            "expected a guide that is deterministic given its draws, got log q = "
            f"{float(once.detach().sum()):g} and {float(again.detach().sum()):g} for the same "
            "draws: use IWAE or Trace_ELBO with dropout or inner optimisation"
        )
