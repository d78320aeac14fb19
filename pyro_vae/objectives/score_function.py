"""The ELBO with the score-function gradient and a baseline."""

from dataclasses import dataclass
from typing import Any

from ..programs.pair import Pair
from .importance_weighted import ImportanceWeighted, check_unsummed, with_gradient
from .objective import Estimate


@dataclass(frozen=True)
class ScoreFunction_ELBO(ImportanceWeighted):
    """The ELBO of K >= 2 draws with the score-function gradient.

    1/K sum_k (log w_k - 1/(K-1) sum_(j != k) log w_j) dlog q(z_k | x)/dphi

    The other draws are the baseline of each draw. The gradient is unbiased for any latents,
    discrete or continuous.

    Source: Williams 1992; Kool, van Hoof & Welling, *Buy 4 REINFORCE Samples, Get a Baseline for
    Free!*, 2019.

    Raises ``ValueError`` for K < 2 or sites of different scales.
    """

    def __post_init__(self) -> None:
        if self.num_particles < 2:
            raise ValueError(
                f"expected num_particles of at least 2, got {self.num_particles}: "
                "the others are the baseline"
            )

    def score(self, pair: Pair, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Estimate:
        """Return the estimate of a pair on a call."""
        K = self.num_particles
        draw = pair.draw(args, kwargs, K, detached=True)
        check_unsummed(draw.structure)
        log_weight = draw.log_weight.detach()
        signal = (log_weight - log_weight.mean(0)) * K / (K - 1)
        log_joint = draw.log_likelihood.local + draw.log_prior.local
        gradient = (log_joint + signal * draw.log_drawn).mean(0).sum()
        loss = with_gradient(-log_weight.mean(0).sum(), -gradient)
        return Estimate.of(draw, draw.scale * loss)
