"""Graphical models: one per file, each a model and a guide in plain Pyro.

They take their distributions and networks as arguments.
May import: families.
"""

from .cvae import CVAE
from .m2 import M2
from .per_datum import PerDatumVAE
from .stacked_m2 import StackedM2
from .vae import VAE

__all__ = [
    "CVAE",
    "M2",
    "VAE",
    "PerDatumVAE",
    "StackedM2",
]
