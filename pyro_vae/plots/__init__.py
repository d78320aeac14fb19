"""Figures.

May import: data, evaluation, families, models, programs, training.
"""

from .charts import comparison, histograms, lines, scatter
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
    "manifold",
    "pareto",
    "posteriors",
    "ranks",
    "reconstructions",
    "samples",
    "save",
    "scatter",
    "traversal",
    "weight_tails",
]
