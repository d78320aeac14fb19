"""Variational autoencoders as explicit probabilistic programs in Pyro."""

from .conditionals import Bernoulli, DiagonalNormal, StandardNormal
from .elbo import Estimate, Objective, Trace_ELBO, TraceMeanField_ELBO
from .importance import log_likelihood, log_weights
from .nets import mlp
from .schedules import cyclical, linear
from .svi import SVI
from .vae import VAE

__all__ = [
    "SVI",
    "VAE",
    "Bernoulli",
    "DiagonalNormal",
    "Estimate",
    "Objective",
    "StandardNormal",
    "TraceMeanField_ELBO",
    "Trace_ELBO",
    "cyclical",
    "linear",
    "log_likelihood",
    "log_weights",
    "mlp",
]
