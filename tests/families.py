"""Every family and prior, by name: a new one is one class in the package and one line here.

A family is built as ``FAMILIES[name](features, dim)``, for an input of ``features`` numbers and a
variable of ``dim`` dimensions.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from pyro_vae import DiagonalNormal, StandardNormal, mlp
from pyro_vae.families.bernoulli import Bernoulli, ContinuousBernoulli
from pyro_vae.families.categorical import GumbelSoftmax, OneHotCategorical
from pyro_vae.families.conditional import Conditional
from pyro_vae.families.counts import Binomial
from pyro_vae.families.delta import Delta
from pyro_vae.families.flow import IAF, FlowPrior, NeuralSpline, Planar, RealNVP
from pyro_vae.families.full_rank import FullRankNormal
from pyro_vae.families.laplace import DiagonalLaplace
from pyro_vae.families.logistic import DiscretizedLogistic
from pyro_vae.families.low_rank import LowRankNormal
from pyro_vae.families.mixture import FullRankMixturePrior, MixtureOfNormals, MixturePrior
from pyro_vae.families.negative_binomial import (
    NegativeBinomial,
    ZeroInflatedNegativeBinomial,
)
from pyro_vae.families.normal import Normal
from pyro_vae.families.power_spherical import PowerSpherical
from pyro_vae.families.spherical import UniformSphere
from pyro_vae.families.student import StudentT
from pyro_vae.families.vamp import VampPrior
from pyro_vae.families.von_mises_fisher import VonMisesFisher


def over(family: type[Conditional], **options: Any) -> Callable[[int, int], Conditional]:
    """A family over a small network."""

    def build(features: int, dim: int) -> Conditional:
        return family.over(
            lambda outputs: mlp(features, 8, outputs, activation=nn.Tanh), dim, **options
        )

    return build


REAL = {
    "diagonal": over(DiagonalNormal),
    "low rank": over(LowRankNormal, rank=2),
    "full rank": over(FullRankNormal),
    "mixture": over(MixtureOfNormals, components=3),
    "planar": over(Planar, depth=4),
    "iaf": over(IAF, hidden=(16,)),
    "realnvp": over(RealNVP, hidden=(16,)),
    "spline": over(NeuralSpline, hidden=(16,)),
    "laplace": over(DiagonalLaplace),
}
SPHERICAL = {
    "power spherical": over(PowerSpherical),
    "von mises-fisher": over(VonMisesFisher),
}
DENSITIES = REAL | SPHERICAL
FAMILIES = DENSITIES | {"delta": over(Delta)}
CATEGORICAL = {
    "categorical": over(OneHotCategorical),
    "gumbel softmax": over(GumbelSoftmax, temperature=0.3, hard=True),
}
LIKELIHOODS = {
    "bernoulli": over(Bernoulli),
    "continuous bernoulli": over(ContinuousBernoulli),
    "normal": over(Normal, scale=0.3),
    "learned normal": over(Normal, scale=2.0, learned=True),
    "student t": over(StudentT),
    "negative binomial": over(NegativeBinomial),
    "zero-inflated": over(ZeroInflatedNegativeBinomial),
    "binomial": over(Binomial, total_count=16),
    "logistic": over(DiscretizedLogistic),
}

PRIORS: dict[str, Callable[[int], nn.Module]] = {
    "standard": StandardNormal,
    "mixture": lambda dim: MixturePrior(dim, 4),
    "full-rank mixture": lambda dim: FullRankMixturePrior(dim, 4),
    "vamp": lambda dim: VampPrior(FAMILIES["full rank"](5, dim), torch.rand(6, 5)),
    "flow": FlowPrior,
    "spline flow": lambda dim: FlowPrior(dim, bins=5),
}


def build(name: str, features: int = 5, dim: int = 3, seed: int = 0) -> nn.Module:
    """A family in float64, with seeded weights large enough to be no diagonal Normal."""
    torch.manual_seed(seed)
    family = FAMILIES[name](features, dim).double()
    with torch.no_grad():
        for parameter in family.parameters():
            parameter.mul_(1.3)
    return family


def prior_for(name: str, dim: int) -> nn.Module:
    return (UniformSphere(dim) if name in SPHERICAL else StandardNormal(dim)).double()


def inputs(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def pixels(rows: int = 7) -> Tensor:
    """Binary data of five pixels."""
    return (inputs(rows, 5) > 0).double()


class Counting(nn.Module):
    """A network that counts its calls and the rows it saw."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.calls, self.rows = 0, 0

    def forward(self, h: Tensor) -> Tensor:
        self.calls, self.rows = self.calls + 1, self.rows + h.shape[:-1].numel()
        return self.net(h)
