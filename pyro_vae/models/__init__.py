"""Graphical models: one per file, each a model and a guide in plain Pyro.

They take their distributions and networks as arguments.
May import: families.
"""

from .channel import SparseChannel
from .cvae import CVAE
from .deep_markov import DeepMarkovModel
from .diffusion import Diffusion
from .gmvae import GMVAE
from .hierarchical import HierarchicalVAE
from .ladder import LadderVAE
from .m2 import M2
from .miwae import MIWAE
from .per_datum import PerDatumVAE
from .scvi import SCVI
from .sequence import SequenceVAE
from .stacked_m2 import StackedM2
from .vae import VAE
from .vq_vae import VQVAE

__all__ = [
    "CVAE",
    "GMVAE",
    "M2",
    "MIWAE",
    "SCVI",
    "VAE",
    "VQVAE",
    "DeepMarkovModel",
    "Diffusion",
    "HierarchicalVAE",
    "LadderVAE",
    "PerDatumVAE",
    "SequenceVAE",
    "SparseChannel",
    "StackedM2",
]
