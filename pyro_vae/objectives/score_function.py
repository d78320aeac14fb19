"""The ELBO with the score-function gradient and a baseline."""

from dataclasses import dataclass
from typing import Any

from ..programs.pair import Pair
from .importance_weighted import ImportanceWeighted, check_drawn, check_unsummed
from .objective import Estimate


@dataclass(frozen=True)
class ScoreFunction_ELBO(ImportanceWeighted):
    """The ELBO of K >= 2 draws with the score-function gradient.

    1/K sum_k (log w_k - 1/(K-1) sum_(j != k) log w_j) dlog q(z_k | x)/dphi

    The other draws are the baseline of each draw. The gradient is unbiased for any latents,
    discrete or continuous, and for sites of different scales. A global draw has the weight of all
    data.

    Source: Williams 1992; Kool, van Hoof & Welling, *Buy 4 REINFORCE Samples, Get a Baseline for
    Free!*, 2019.

    Raises ``ValueError`` for K < 2, guides without a density, and guides with a factor.
    """

    def __post_init__(self) -> None:
        if self.num_particles < 2:
            raise ValueError(
                f"expected num_particles of at least 2, got {self.num_particles}: "
                "the others are the baseline"
            )

    def score(self, pair: Pair, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Estimate:
        """Return the estimate of a pair on a call."""
        draw = pair.draw(args, kwargs, self.num_particles, detached=True)
        check_unsummed(draw.structure)
        check_drawn(draw)
        elbo = draw.log_likelihood + draw.log_prior - draw.log_guide.detached()
        elbo = draw.with_score_gradient(elbo, draw.log_drawn, baseline=True)
        return Estimate.of(draw, -draw.total(elbo))
