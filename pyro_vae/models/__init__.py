"""Graphical models, one in each file, as a literal model and guide in plain Pyro.

May import: families, nets, programs.
"""

from .per_datum import PerDatumVAE
from .vae import VAE

__all__ = [
    "VAE",
    "PerDatumVAE",
]
