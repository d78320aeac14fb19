"""The variational Renyi bound."""

import math
from dataclasses import dataclass
from typing import Any

from ..programs.draw import Draw
from ..programs.pair import Pair
from .importance_weighted import ImportanceWeighted, bound_of, check_trained
from .objective import Estimate


@dataclass(frozen=True)
class Renyi(ImportanceWeighted):
    """The variational Renyi bound, between the ELBO (alpha -> 1) and IWAE (alpha = 0).

    loss = -sum_b 1/(1 - alpha) log 1/K sum_k w_kb^(1 - alpha)

    For alpha < 0 it is above the bound of IWAE. Source: Li & Turner, *Renyi Divergence Variational
    Inference*, 2016, equation 8.

    Raises ``ValueError`` for alpha = 1 (use ``Trace_ELBO``), and as
    :class:`pyro_vae.objectives.IWAE`.
    """

    alpha: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.alpha == 1 or not math.isfinite(self.alpha):
            raise ValueError(
                f"expected a finite alpha other than 1, whose limit is Trace_ELBO, got {self.alpha}"
            )

    def score(self, pair: Pair, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Estimate:
        """Return the estimate of a pair on a call."""
        draw = pair.draw(args, kwargs, self.num_particles)
        self.check(draw)
        return Estimate.of(draw, -draw.scale * bound_of(draw, 1 - self.alpha).sum())

    def check(self, draw: Draw) -> None:
        """Raise where the objective does not hold for these draws."""
        check_trained(draw)
