"""Graphical models: one per file, each a model and a guide in plain Pyro.

They take their distributions and networks as arguments.
May import: families.
"""

from .gmvae import GMVAE
from .hierarchical import HierarchicalVAE
from .ladder import LadderVAE
from .per_datum import PerDatumVAE
from .vae import VAE

__all__ = [
    "GMVAE",
    "VAE",
    "HierarchicalVAE",
    "LadderVAE",
    "PerDatumVAE",
]
