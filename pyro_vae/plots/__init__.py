"""Figures.

May import: data, evaluation, families, models, programs, training.
"""

from .diagnostics import convergence, extremes, pareto, ranks, weight_tails
from .panels import (
    curves,
    images,
    interpolations,
    latent_scatter,
    manifold,
    reconstructions,
    samples,
    save,
    traversal,
)
from .piano import piano_rolls
from .runs import compared

__all__ = [
    "compared",
    "convergence",
    "curves",
    "extremes",
    "images",
    "interpolations",
    "latent_scatter",
    "manifold",
    "pareto",
    "piano_rolls",
    "ranks",
    "reconstructions",
    "samples",
    "save",
    "traversal",
    "weight_tails",
]
