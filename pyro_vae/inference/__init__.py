"""Inference: SVI and its step, several processes, semi-amortised guides, NUTS.

May import: objectives, programs.
"""

from .distributed import (
    agreed,
    all_reduce_sum,
    barrier,
    local_rank,
    processes,
    rank,
    replicated,
    world_size,
)
from .nuts import posterior_draws
from .semi_amortised import SemiAmortised
from .step import GraphStep, clipped, objective_key
from .svi import SVI, objective_at, pyro_objective

__all__ = [
    "SVI",
    "GraphStep",
    "SemiAmortised",
    "agreed",
    "all_reduce_sum",
    "barrier",
    "clipped",
    "local_rank",
    "objective_at",
    "objective_key",
    "posterior_draws",
    "processes",
    "pyro_objective",
    "rank",
    "replicated",
    "world_size",
]
