"""Families of distributions, and the modules whose call returns one: priors, likelihoods, posteriors.

A distribution and its conditional are in one file. May import: nets.
"""

from .bernoulli import (
    Bernoulli,
    BernoulliDistribution,
    ContinuousBernoulli,
    ContinuousBernoulliDistribution,
)
from .bessel import bessel_ratio, log_bessel
from .categorical import GumbelSoftmax, OneHotCategorical, RelaxedOneHot, UniformOneHot
from .conditional import Conditional
from .counts import Binomial, BinomialDistribution
from .delta import Delta
from .elementwise import Elementwise
from .flow import (
    IAF,
    AutoregressiveLayer,
    CouplingLayer,
    Flow,
    FlowDistribution,
    FlowPrior,
    NeuralSpline,
    Planar,
    PlanarLayer,
    RealNVP,
)
from .full_rank import FullRank, FullRankNormal
from .laplace import DiagonalLaplace
from .logistic import DiscretizedLogistic, DiscretizedLogisticDistribution
from .low_rank import LowRank, LowRankNormal
from .mixture import ImplicitMixture, MixtureOfNormals, MixturePrior
from .moments import mean
from .normal import DiagonalNormal, Normal, NormalDistribution, StandardNormal
from .spherical import (
    PowerSpherical,
    PowerSphericalDistribution,
    Uniform,
    UniformSphere,
    VonMisesFisher,
    VonMisesFisherDistribution,
    log_area,
)
from .vamp import VampPrior

__all__ = [
    "IAF",
    "AutoregressiveLayer",
    "Bernoulli",
    "BernoulliDistribution",
    "Binomial",
    "BinomialDistribution",
    "Conditional",
    "ContinuousBernoulli",
    "ContinuousBernoulliDistribution",
    "CouplingLayer",
    "Delta",
    "DiagonalLaplace",
    "DiagonalNormal",
    "DiscretizedLogistic",
    "DiscretizedLogisticDistribution",
    "Elementwise",
    "Flow",
    "FlowDistribution",
    "FlowPrior",
    "FullRank",
    "FullRankNormal",
    "GumbelSoftmax",
    "ImplicitMixture",
    "LowRank",
    "LowRankNormal",
    "MixtureOfNormals",
    "MixturePrior",
    "NeuralSpline",
    "Normal",
    "NormalDistribution",
    "OneHotCategorical",
    "Planar",
    "PlanarLayer",
    "PowerSpherical",
    "PowerSphericalDistribution",
    "RealNVP",
    "RelaxedOneHot",
    "StandardNormal",
    "Uniform",
    "UniformOneHot",
    "UniformSphere",
    "VampPrior",
    "VonMisesFisher",
    "VonMisesFisherDistribution",
    "bessel_ratio",
    "log_area",
    "log_bessel",
    "mean",
]
