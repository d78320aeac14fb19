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
from .tradeoff import RatePoint, factor_maps, rate_distortion

__all__ = [
    "LearningCurve",
    "RatePoint",
    "convergence",
    "curves",
    "extremes",
    "factor_maps",
    "images",
    "interpolations",
    "latent_scatter",
    "learning_curves",
    "manifold",
    "pareto",
    "ranks",
    "rate_distortion",
    "reconstructions",
    "samples",
    "save",
    "traversal",
    "weight_tails",
]
