"""Figures.

May import: data, evaluation, families, models, programs, training.
"""

from .diagnostics import convergence, extremes, pareto, ranks, weight_tails
from .learning import LearningCurve, learning_curves
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
    "LearningCurve",
    "convergence",
    "curves",
    "extremes",
    "images",
    "interpolations",
    "latent_scatter",
    "learning_curves",
    "manifold",
    "pareto",
    "ranks",
    "reconstructions",
    "samples",
    "save",
    "traversal",
    "weight_tails",
]
