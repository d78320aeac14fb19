"""The variational Renyi bound."""

import math
from dataclasses import dataclass
from typing import Any

from ..programs.scoring import draw, terms
from ..programs.sites import Program
from .estimate import Estimate
from .importance_weighted import ImportanceWeighted, check_reparameterised, common_scale, estimate


@dataclass(frozen=True)
class Renyi(ImportanceWeighted):
    """The variational Renyi bound, between the ELBO (alpha -> 1) and IWAE (alpha = 0); above it for alpha < 0.

    loss = -sum_b 1/(1 - alpha) log 1/K sum_k w_kb^(1 - alpha)

    Source: Li & Turner, *Renyi Divergence Variational Inference*, 2016, equation 8.

    Raises ``ValueError`` for alpha = 1 (use ``Trace_ELBO``), and as :class:`pyro_vae.objectives.importance_weighted.IWAE`.
    """

    alpha: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.alpha == 1 or not math.isfinite(self.alpha):
            raise ValueError(
                f"expected a finite alpha other than 1, whose limit is Trace_ELBO, got {self.alpha}"
            )

    def __call__(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> Estimate:
        """Return the estimate for a batch."""
        traces = draw(model, guide, args, kwargs, self.num_particles, self.max_plate_nesting)
        check_reparameterised(traces[1], "ReweightedWakeSleep")
        now = terms(*traces, scaled=False)
        power = 1 - self.alpha
        return estimate(-self._bound(power * now.log_weight) / power, now, common_scale(*traces))
