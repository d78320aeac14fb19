"""Figures.

May import: data, evaluation, families, models, programs, training.
"""

from .charts import comparison, histograms, lines, scatter
from .diagnostics import convergence, extremes, pareto, ranks, weight_tails
from .history import compared, curves
from .learning import LearningCurve, learning_curves
from .methods import bars, points, recovered
from .panels import (
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
from .plane import codes, posteriors
from .structure import clusters, layers
from .tradeoff import RatePoint, factor_maps, rate_distortion

__all__ = [
    "LearningCurve",
    "RatePoint",
    "bars",
    "clusters",
    "codes",
    "compared",
    "comparison",
    "convergence",
    "curves",
    "extremes",
    "factor_maps",
    "histograms",
    "images",
    "interpolations",
    "latent_scatter",
    "layers",
    "learning_curves",
    "lines",
    "manifold",
    "pareto",
    "piano_rolls",
    "points",
    "posteriors",
    "ranks",
    "rate_distortion",
    "reconstructions",
    "recovered",
    "samples",
    "save",
    "scatter",
    "traversal",
    "weight_tails",
]
