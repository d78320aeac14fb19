"""The ELBO with the score-function gradient and a baseline."""

from dataclasses import dataclass
from typing import Any

from pyro.poutine.messenger import Messenger
from torch import Tensor

from ..programs.scoring import draw, terms
from ..programs.sites import Program, data_dim, particle_dim, score_sum, stochastic_sites
from .estimate import Estimate
from .importance_weighted import ImportanceWeighted, common_scale, estimate, with_gradient


class detached_draws(Messenger):  # type: ignore[misc]
    """Cut every draw from the parameters that made it, before a trace inside records it and the program goes on."""

    def _pyro_post_sample(self, msg: Any) -> None:
        if isinstance(msg["value"], Tensor):
            msg["value"] = msg["value"].detach()


@dataclass(frozen=True)
class ScoreFunction_ELBO(ImportanceWeighted):
    """The ELBO of K >= 2 draws, its guide's gradient by the score function with the other draws' mean as the baseline.

    sum_k (log w_k - 1/(K-1) sum_(j != k) log w_j) dlog q(z_k | x)/dphi / K: unbiased for any latents, discrete or not.

    Source: Williams 1992; Kool, van Hoof & Welling, *Buy 4 REINFORCE Samples, Get a Baseline for Free!*, 2019.

    Raises ``ValueError`` for K < 2 or sites of different scales.
    """

    def __post_init__(self) -> None:
        if self.num_particles < 2:
            raise ValueError(
                f"expected num_particles of at least 2, got {self.num_particles}: the others are the baseline"
            )

    def __call__(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> Estimate:
        """Return the estimate for a batch."""
        with detached_draws():
            traces = draw(model, guide, args, kwargs, self.num_particles, self.max_plate_nesting)
        now = terms(*traces, scaled=False)
        log_weight = now.log_weight.detach()
        signal = (log_weight - log_weight.mean(0)) * self.num_particles / (self.num_particles - 1)
        score = score_sum(stochastic_sites(traces[1]), {particle_dim(traces[1]), data_dim(*traces)})
        gradient = (now.log_likelihood + now.log_prior + signal * score).sum() / self.num_particles
        return estimate(with_gradient(-log_weight.mean(0), -gradient), now, common_scale(*traces))
