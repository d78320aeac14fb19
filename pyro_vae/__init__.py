"""Variational autoencoders as explicit probabilistic programs in Pyro."""

from importlib.metadata import version

from .data import load_data
from .evaluation import evaluate, log_likelihood, log_weights
from .families import (
    IAF,
    Bernoulli,
    Binomial,
    ContinuousBernoulli,
    DiagonalNormal,
    DiscretizedLogistic,
    FullRankNormal,
    LowRankNormal,
    MixtureOfNormals,
    NeuralSpline,
    Normal,
    RealNVP,
    StandardNormal,
)
from .inference import SVI
from .models import VAE
from .nets import (
    conv_decoder,
    conv_encoder,
    mlp,
    residual_decoder,
    residual_encoder,
    set_output_bias,
)
from .objectives import (
    IWAE,
    STL,
    DReG,
    Estimate,
    Objective,
    Trace_ELBO,
    TraceMeanField_ELBO,
    cyclical,
    linear,
)
from .training import fit, iter_epochs, load, save

__version__ = version("pyro_vae")

__all__ = [
    "IAF",
    "IWAE",
    "STL",
    "SVI",
    "VAE",
    "Bernoulli",
    "Binomial",
    "ContinuousBernoulli",
    "DReG",
    "DiagonalNormal",
    "DiscretizedLogistic",
    "Estimate",
    "FullRankNormal",
    "LowRankNormal",
    "MixtureOfNormals",
    "NeuralSpline",
    "Normal",
    "Objective",
    "RealNVP",
    "StandardNormal",
    "TraceMeanField_ELBO",
    "Trace_ELBO",
    "conv_decoder",
    "conv_encoder",
    "cyclical",
    "evaluate",
    "fit",
    "iter_epochs",
    "linear",
    "load",
    "load_data",
    "log_likelihood",
    "log_weights",
    "mlp",
    "residual_decoder",
    "residual_encoder",
    "save",
    "set_output_bias",
]
