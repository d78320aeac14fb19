"""Graphical models: one per file, each a model and a guide in plain Pyro.

They take their distributions and networks as arguments.
May import: families.
"""

from .per_datum import PerDatumVAE
from .sequence import SequenceVAE
from .vae import VAE

__all__ = [
    "VAE",
    "PerDatumVAE",
    "SequenceVAE",
]
