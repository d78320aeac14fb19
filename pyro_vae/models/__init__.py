"""Graphical models: one per file, each a model and a guide in plain Pyro.

They take their distributions and networks as arguments.
May import: families.
"""

from .cvae import CVAE
from .m2 import M2
from .gmvae import GMVAE
from .hierarchical import HierarchicalVAE
from .ladder import LadderVAE
from .per_datum import PerDatumVAE
from .stacked_m2 import StackedM2
from .deep_markov import DeepMarkovModel
from .per_datum import PerDatumVAE
from .sequence import SequenceVAE
from .vae import VAE

__all__ = [
    "CVAE",
    "M2",
    "GMVAE",
from .channel import SparseChannel
from .miwae import MIWAE
from .per_datum import PerDatumVAE
from .scvi import SCVI
from .vae import VAE

__all__ = [
    "MIWAE",
    "SCVI",
    "VAE",
    "HierarchicalVAE",
    "LadderVAE",
    "PerDatumVAE",
    "StackedM2",
    "DeepMarkovModel",
    "PerDatumVAE",
    "SequenceVAE",
    "SparseChannel",
]
