"""Figures.

May import: data, evaluation, families, models, programs, training.
"""

from .comparison import bars, lines, points, recovered
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

__all__ = [
    "bars",
    "convergence",
    "curves",
    "extremes",
    "images",
    "interpolations",
    "latent_scatter",
    "lines",
    "manifold",
    "pareto",
    "points",
    "ranks",
    "reconstructions",
    "recovered",
    "samples",
    "save",
    "traversal",
    "weight_tails",
]
