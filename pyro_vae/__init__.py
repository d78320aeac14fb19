"""Variational autoencoders as explicit probabilistic programs in Pyro."""

from .conditionals import Bernoulli, Binomial, ContinuousBernoulli, DiagonalNormal, DiscretizedLogistic, Normal, StandardNormal
from .elbo import Estimate, Objective, Trace_ELBO, TraceMeanField_ELBO
from .importance import log_likelihood, log_weights
from .nets import conv_decoder, conv_encoder, mlp, residual_decoder, residual_encoder, set_output_bias
from .schedules import cyclical, linear
from .svi import SVI
from .vae import VAE

__all__ = [
    "SVI",
    "VAE",
    "Bernoulli",
    "Binomial",
    "ContinuousBernoulli",
    "DiagonalNormal",
    "DiscretizedLogistic",
    "Estimate",
    "Normal",
    "Objective",
    "StandardNormal",
    "TraceMeanField_ELBO",
    "Trace_ELBO",
    "conv_decoder",
    "conv_encoder",
    "cyclical",
    "linear",
    "log_likelihood",
    "log_weights",
    "mlp",
    "residual_decoder",
    "residual_encoder",
    "set_output_bias",
]
