"""Figures.

May import: data, evaluation, families, models, programs, training.
"""

from .charts import comparison, histograms, lines, scatter
from .compared import compared
from .comparison import bars, lines, recovered
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
from .structure import clusters, layers

__all__ = [
    "clusters",
from .piano import piano_rolls

__all__ = [
    "compared",
    "bars",
    "convergence",
    "curves",
    "extremes",
    "factor_maps",
    "images",
    "interpolations",
    "latent_scatter",
    "learning_curves",
from .plane import codes, posteriors

__all__ = [
    "codes",
    "comparison",
    "convergence",
    "curves",
    "extremes",
    "histograms",
    "images",
    "interpolations",
    "latent_scatter",
    "lines",
    "layers",
    "lines",
    "manifold",
    "pareto",
    "posteriors",
    "piano_rolls",
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
