"""Every family and prior, by name: a new one is one class in the package and one line here.

A family is built as ``FAMILIES[name](features, dim)``, for an input of ``features`` numbers and a latent of ``dim``.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from pyro_vae import DiagonalNormal, StandardNormal, mlp
from pyro_vae.families.delta import Delta
from pyro_vae.families.flow import IAF, FlowPrior, NeuralSpline, Planar, RealNVP
from pyro_vae.families.full_rank import FullRankNormal
from pyro_vae.families.laplace import DiagonalLaplace
from pyro_vae.families.low_rank import LowRankNormal
from pyro_vae.families.mixture import MixtureOfNormals, MixturePrior
from pyro_vae.families.power_spherical import PowerSpherical
from pyro_vae.families.spherical import UniformSphere
from pyro_vae.families.vamp import VampPrior
from pyro_vae.families.von_mises_fisher import VonMisesFisher


def over_mlp(family: Any, *sizes: Any, **options: Any) -> Callable[[int, int], nn.Module]:
    """A family over a small network; ``sizes`` are the further arguments of ``outputs``."""
    return lambda features, dim: family(
        mlp(features, 8, family.outputs(dim, *sizes), activation=nn.Tanh), *sizes, **options
    )


def flow(family: Any, **options: Any) -> Callable[[int, int], nn.Module]:
    return lambda features, dim: family(
        mlp(features, 8, family.outputs(dim), activation=nn.Tanh), dim, **options
    )


REAL = {
    "diagonal": over_mlp(DiagonalNormal),
    "low rank": over_mlp(LowRankNormal, 2),
    "full rank": over_mlp(FullRankNormal),
    "mixture": over_mlp(MixtureOfNormals, 3),
    "planar": flow(Planar, depth=4),
    "iaf": flow(IAF, hidden=(16,)),
    "realnvp": flow(RealNVP, hidden=(16,)),
    "spline": flow(NeuralSpline, hidden=(16,)),
    "laplace": over_mlp(DiagonalLaplace),
}
SPHERICAL = {
    "power spherical": over_mlp(PowerSpherical),
    "von mises-fisher": over_mlp(VonMisesFisher),
}
DENSITIES = REAL | SPHERICAL
FAMILIES = DENSITIES | {"delta": over_mlp(Delta)}

PRIORS: dict[str, Callable[[int], nn.Module]] = {
    "standard": StandardNormal,
    "mixture": lambda dim: MixturePrior(dim, 4),
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


class Counting(nn.Module):
    """A network that counts its calls and the rows it saw."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.calls, self.rows = 0, 0

    def forward(self, h: Tensor) -> Tensor:
        self.calls, self.rows = self.calls + 1, self.rows + h.shape[:-1].numel()
        return self.net(h)
