"""Families: modules whose call returns a distribution; priors, likelihoods and posteriors.

A distribution and the module that builds it from a network are in one file. May import: nets.
"""

from .adaptive import AdaptiveCategorical, AdaptiveDistribution
from .bernoulli import (
    Bernoulli,
    BernoulliDistribution,
    ContinuousBernoulli,
    ContinuousBernoulliDistribution,
)
from .bessel import bessel_ratio, log_bessel
from .categorical import Categorical, GumbelSoftmax, OneHotCategorical, RelaxedOneHot, UniformOneHot
from .conditional import Conditional
from .counts import Binomial, BinomialDistribution
from .delta import Delta
from .elementwise import Elementwise
from .flow import IAF, Flow, FlowDistribution, FlowPrior, NeuralSpline, Planar, RealNVP
from .flow_layers import AutoregressiveLayer, CouplingLayer, PlanarLayer
from .full_rank import FullRank, FullRankNormal
from .laplace import DiagonalLaplace
from .levels import Levels, NearestLevel, log_odds
from .logistic import DiscretizedLogistic, DiscretizedLogisticDistribution
from .low_rank import LowRank, LowRankNormal
from .missing import elements, masked
from .mixture import FullRankMixturePrior, ImplicitMixture, MixtureOfNormals, MixturePrior
from .moments import mean
from .negative_binomial import (
    NegativeBinomial,
    NegativeBinomialDistribution,
    ZeroInflatedDistribution,
    ZeroInflatedNegativeBinomial,
)
from .noising import Noising
from .normal import DiagonalNormal, Normal, NormalDistribution, StandardNormal, product
from .power_spherical import PowerSpherical, PowerSphericalDistribution
from .spherical import Uniform, UniformSphere, log_area
from .student import StudentT
from .vamp import VampPrior
from .vector_quantised import (
    AutoregressiveCodes,
    Codebook,
    NearestCode,
    NearestCodeDistribution,
    UniformCodes,
)
from .von_mises_fisher import VonMisesFisher, VonMisesFisherDistribution

__all__ = [
    "IAF",
    "AdaptiveCategorical",
    "AdaptiveDistribution",
    "AutoregressiveCodes",
    "AutoregressiveLayer",
    "Bernoulli",
    "BernoulliDistribution",
    "Binomial",
    "BinomialDistribution",
    "Categorical",
    "Codebook",
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
    "FullRankMixturePrior",
    "FullRankNormal",
    "GumbelSoftmax",
    "ImplicitMixture",
    "Levels",
    "LowRank",
    "LowRankNormal",
    "MixtureOfNormals",
    "MixturePrior",
    "NearestCode",
    "NearestCodeDistribution",
    "NearestLevel",
    "NegativeBinomial",
    "NegativeBinomialDistribution",
    "NeuralSpline",
    "Noising",
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
    "StudentT",
    "Uniform",
    "UniformCodes",
    "UniformOneHot",
    "UniformSphere",
    "VampPrior",
    "VonMisesFisher",
    "VonMisesFisherDistribution",
    "ZeroInflatedDistribution",
    "ZeroInflatedNegativeBinomial",
    "bessel_ratio",
    "elements",
    "log_area",
    "log_bessel",
    "log_odds",
    "masked",
    "mean",
    "product",
]
