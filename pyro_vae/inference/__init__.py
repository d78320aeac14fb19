"""Inference: SVI and its optimisation step, several processes, semi-amortised guides, NUTS.

The loop over epochs is in ``training``.
May import: objectives, programs.
"""

from .distributed import agreed, barrier, local_rank, processes, rank, world_size
from .nuts import posterior_draws
from .semi_amortised import SemiAmortised
from .svi import SVI

__all__ = [
    "SVI",
    "SemiAmortised",
    "agreed",
    "barrier",
    "local_rank",
    "posterior_draws",
    "processes",
    "rank",
    "world_size",
]
