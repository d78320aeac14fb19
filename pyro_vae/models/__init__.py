"""Graphical models: one per file, each a model and a guide in plain Pyro.

They take their distributions and networks as arguments.
May import: families.
"""

from .channel import SparseChannel
from .diffusion import Diffusion
from .miwae import MIWAE
from .per_datum import PerDatumVAE
from .scvi import SCVI
from .vae import VAE
from .vq_vae import VQVAE

__all__ = [
    "MIWAE",
    "SCVI",
    "VAE",
    "VQVAE",
    "Diffusion",
    "PerDatumVAE",
    "SparseChannel",
]
