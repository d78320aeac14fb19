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
from .structure import clusters, layers

__all__ = [
    "clusters",
    "convergence",
    "curves",
    "extremes",
    "images",
    "interpolations",
    "latent_scatter",
    "layers",
    "manifold",
    "pareto",
    "ranks",
    "reconstructions",
    "samples",
    "save",
    "traversal",
    "weight_tails",
]
