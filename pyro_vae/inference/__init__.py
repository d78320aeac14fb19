"""Inference: SVI and its optimisation step, several processes, semi-amortised guides, NUTS.

The loop over epochs is in ``training``.
May import: objectives, programs.
"""

from .distributed import agreed, barrier, local_rank, processes, rank, world_size
from .nuts import posterior_draws
from .semi_amortised import SemiAmortised
from .sparse_channel import (
    ChannelPosterior,
    ChannelPrior,
    all_supports,
    em_step,
    exact_posterior,
    mean_field,
)
from .svi import SVI

__all__ = [
    "SVI",
    "ChannelPosterior",
    "ChannelPrior",
    "SemiAmortised",
    "agreed",
    "all_supports",
    "barrier",
    "em_step",
    "exact_posterior",
    "local_rank",
    "mean_field",
    "posterior_draws",
    "processes",
    "rank",
    "world_size",
]
