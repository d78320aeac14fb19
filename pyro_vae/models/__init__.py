"""Graphical models: one per file, each a model and a guide in plain Pyro.

They take their distributions and networks as arguments.
May import: families.
"""

from .deep_markov import DeepMarkovModel
from .per_datum import PerDatumVAE
from .sequence import SequenceVAE
from .vae import VAE

__all__ = [
    "VAE",
    "DeepMarkovModel",
    "PerDatumVAE",
    "SequenceVAE",
]
