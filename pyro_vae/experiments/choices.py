"""What the names of a configuration mean: a new guide, prior or objective is one more line."""

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from ..data.images import Images
from ..families import (
    IAF,
    Bernoulli,
    Binomial,
    Conditional,
    ContinuousBernoulli,
    DiagonalLaplace,
    DiagonalNormal,
    DiscretizedLogistic,
    FlowPrior,
    FullRankNormal,
    LowRankNormal,
    MixtureOfNormals,
    MixturePrior,
    NeuralSpline,
    Normal,
    Planar,
    PowerSpherical,
    RealNVP,
    StandardNormal,
    UniformSphere,
    VampPrior,
    VonMisesFisher,
)
from ..nets.conv import Shape, conv_decoder, conv_encoder
from ..nets.dense import mlp
from ..nets.precision import BFloat16
from ..nets.residual import residual_decoder, residual_encoder
from ..objectives.doubly_reparameterised import STL, DReG
from ..objectives.elbo import Trace_ELBO, TraceMeanField_ELBO
from ..objectives.free_bits import FreeBits
from ..objectives.importance_weighted import IWAE
from ..objectives.info import InfoVAE
from ..objectives.objective import Schedule
from ..objectives.renyi import Renyi
from ..objectives.schedules import cyclical, linear
from ..objectives.wake_sleep import ReweightedWakeSleep

if TYPE_CHECKING:
    from .config import Config

T = TypeVar("T")

Network = Callable[[int], nn.Module]
"""Builds a network with a number of outputs."""


class Likelihood(NamedTuple):
    """A family for p(x | z), and what it needs beside its network."""

    family: type[Conditional]
    arguments: Callable[["Config", Images], dict[str, Any]] = lambda config, images: {}
    bias: Callable[[Tensor], Tensor] = lambda mean: mean.clamp(1e-3, 1 - 1e-3).logit()
    """The output bias that gives the mean of the data, (D,) in [0, 1]."""


# The first likelihood that is a density of some kind of pixels is the default for these pixels.
LIKELIHOODS: dict[str, Likelihood] = {
    "bernoulli": Likelihood(Bernoulli),
    "continuous_bernoulli": Likelihood(ContinuousBernoulli),
    "normal": Likelihood(
        Normal, lambda c, _: {"scale": c.scale, "learned": c.learn_scale}, lambda mean: mean
    ),
    "discretized_logistic": Likelihood(
        DiscretizedLogistic, bias=lambda mean: torch.cat([mean, torch.full_like(mean, -2)])
    ),
    "binomial": Likelihood(Binomial, lambda c, images: {"total_count": images.levels}),
}

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "elu": nn.ELU,
    "silu": nn.SiLU,
}

ENCODERS: dict[str, Callable[["Config", Shape, int], nn.Module]] = {
    "mlp": lambda c, shape, outputs: mlp(
        math.prod(shape), *c.hidden, outputs, activation=_activation(c)
    ),
    "conv": lambda c, shape, outputs: conv_encoder(shape, outputs),
    "residual": lambda c, shape, outputs: residual_encoder(shape, outputs),
}

DECODERS: dict[str, Callable[["Config", Shape, int], nn.Module]] = {
    "mlp": lambda c, shape, outputs: mlp(
        c.latent_dim, *c.hidden[::-1], outputs, activation=_activation(c)
    ),
    "conv": lambda c, shape, outputs: conv_decoder(c.latent_dim, shape, outputs),
    "residual": lambda c, shape, outputs: residual_decoder(c.latent_dim, shape, outputs),
}

GUIDES: dict[str, type[Conditional]] = {
    "diagonal": DiagonalNormal,
    "laplace": DiagonalLaplace,
    "low_rank": LowRankNormal,
    "full_rank": FullRankNormal,
    "mixture": MixtureOfNormals,
    "planar": Planar,
    "iaf": IAF,
    "realnvp": RealNVP,
    "spline": NeuralSpline,
    "power_spherical": PowerSpherical,
    "von_mises_fisher": VonMisesFisher,
}

GUIDE_OPTIONS: dict[str, dict[str, int]] = {"low_rank": {"rank": 5}}
"""What a guide needs beside its network and dimension."""

SPHERICAL = {"power_spherical", "von_mises_fisher"}
"""Guides that are densities on the sphere: they need the prior "sphere"."""

PRIORS: dict[str, Callable[["Config", nn.Module, Images], nn.Module]] = {
    "standard": lambda c, q, train: StandardNormal(c.latent_dim),
    "mixture": lambda c, q, train: MixturePrior(c.latent_dim),
    "vamp": lambda c, q, train: VampPrior(
        q, train.batch(torch.randperm(len(train))[:100]).float().cpu(), peak(train)
    ),
    "flow": lambda c, q, train: FlowPrior(c.latent_dim),
    "spline_flow": lambda c, q, train: FlowPrior(c.latent_dim, bins=8),
    "sphere": lambda c, q, train: UniformSphere(c.latent_dim),
}

# Those from "iwae" on weigh no KL, so that beta is refused.
OBJECTIVES: dict[str, Callable[["Config", float | Schedule], Any]] = {
    "elbo": lambda c, beta: Trace_ELBO(num_particles=c.num_particles, beta=beta),
    "analytic": lambda c, beta: TraceMeanField_ELBO(num_particles=c.num_particles, beta=beta),
    "iwae": lambda c, beta: IWAE(_plain(c, beta).num_particles),
    "dreg": lambda c, beta: DReG(_plain(c, beta).num_particles),
    "stl": lambda c, beta: STL(_plain(c, beta).num_particles),
    "renyi": lambda c, beta: Renyi(_plain(c, beta).num_particles),
    "wake_sleep": lambda c, beta: ReweightedWakeSleep(_plain(c, beta).num_particles),
    "free_bits": lambda c, beta: FreeBits(_single(_plain(c, beta)).free_bits),
    "infovae": lambda c, beta: InfoVAE(weight=_single(_plain(c, beta)).mmd_weight),
}

ANNEALING: dict[str, Callable[["Config", int], float | Schedule]] = {
    "none": lambda c, steps: c.beta,
    "linear": lambda c, steps: linear(steps, stop=c.beta),
    "cyclical": lambda c, steps: cyclical(steps, stop=c.beta),
}

OPTIMISERS: dict[str, Callable[["Config", Any], torch.optim.Optimizer]] = {
    "adam": lambda c, parameters: torch.optim.Adam(
        parameters, c.lr, c.adam_betas, c.adam_eps, fused=True
    ),
    "adagrad": lambda c, parameters: torch.optim.Adagrad(parameters, c.lr),
    "sgd": lambda c, parameters: torch.optim.SGD(parameters, c.lr),
}

# Factors of the learning rate by epoch, from 0.
# "burda": the eight stages of 3^i epochs of the IWAE (Burda et al. 2015).
LR_SCHEDULES: dict[str, Callable[["Config", int], float]] = {
    "constant": lambda c, epoch: 1.0,
    "cosine": lambda c, epoch: 0.5 + 0.5 * math.cos(math.pi * min(epoch / c.epochs, 1.0)),
    "burda": lambda c, epoch: round(
        10 ** (1 - min(int(math.log(2 * epoch + 1, 3) + 1e-9), 7) / 7), 1
    ),
}

PRECISIONS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "float32": lambda net: net,
    "bf16": BFloat16,
}


def pick(table: Mapping[str, T], name: str, option: str) -> T:
    """Return the entry of a name; raise ``ValueError`` where a table lacks it.

    >>> pick(ACTIVATIONS, "tanh", "activation")
    <class 'torch.nn.modules.activation.Tanh'>
    """
    if name not in table:
        raise ValueError(f"expected {option} to be one of {', '.join(table)}, got {name!r}")
    return table[name]


def guide_over(name: str, network: Network, dim: int) -> Conditional:
    """Build the guide of a name, a density of ``dim`` dimensions, over a network."""
    family = pick(GUIDES, name, "guide")
    return family.over(network, dim, **GUIDE_OPTIONS.get(name, {}))


def peak(images: Images) -> float:
    """The largest value that a program can observe of a pixel: 1, or the levels of integer pixels.

    >>> from pyro_vae.data.splits import load_data
    >>> peak(load_data("digits").train)
    16.0
    """
    return float(images.levels) if images.pixels in ("counts", "8bit") else 1.0


def fitting_likelihoods(images: Images) -> list[str]:
    """The names of the likelihoods that are densities of the images' pixels, the default first.

    >>> from pyro_vae.data.splits import load_data
    >>> fitting_likelihoods(load_data("digits").train)
    ['binomial']
    """
    return [
        name
        for name, likelihood in LIKELIHOODS.items()
        if images.pixels in likelihood.family.pixels
    ]


def _activation(config: "Config") -> type[nn.Module]:
    return pick(ACTIVATIONS, config.activation, "activation")


def _plain(config: "Config", beta: float | Schedule) -> "Config":
    """The configuration, for objectives that have no KL to weigh."""
    if beta != 1.0:
        raise ValueError(
            f"expected beta 1 and no annealing for objective {config.objective}, "
            f"which weighs no KL, got beta {config.beta} and annealing {config.annealing}"
        )
    return config


def _single(config: "Config") -> "Config":
    """The configuration, for objectives of one draw."""
    if config.num_particles != 1:
        raise ValueError(
            f"expected num_particles 1 for objective {config.objective}, got {config.num_particles}"
        )
    return config
