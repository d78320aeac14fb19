"""Programs with clusters and several stochastic layers."""

from collections.abc import Callable

import torch
from torch import nn

from pyro_vae import Bernoulli, DiagonalNormal, StandardNormal, mlp
from pyro_vae.families import MixturePrior
from pyro_vae.models import GMVAE, HierarchicalVAE, LadderVAE

from ..networks import CLASSES, LATENT, PIXELS
from ..subject import Subject, of


def normal(size_in: int, size_out: int = LATENT) -> DiagonalNormal:
    """A diagonal Normal given a parent."""
    return DiagonalNormal(nn.Linear(size_in, 2 * size_out))


def gmvae() -> GMVAE:
    """Three clusters."""
    return GMVAE(MixturePrior(LATENT, CLASSES), Bernoulli(mlp(LATENT, 8, PIXELS)), normal(PIXELS))


def hierarchical() -> HierarchicalVAE:
    """Three layers, of 3, 2 and 1 dimensions."""
    layers = [normal(2, 3), normal(1, 2)]
    encoders = [normal(PIXELS, 3), normal(3, 2), normal(2, 1)]
    return HierarchicalVAE(StandardNormal(1), layers, Bernoulli(mlp(3, 8, PIXELS)), encoders)


def ladder() -> LadderVAE:
    """Two layers, of 3 and 2 dimensions."""
    up = [mlp(PIXELS, 8, 5), mlp(5, 8, 4)]
    decoder = Bernoulli(mlp(3, 8, PIXELS))
    return LadderVAE(StandardNormal(2), [normal(2, 3)], decoder, [normal(5, 3), normal(4)], up)


MODELS: dict[str, Callable[[], Subject]] = {
    "GMVAE": lambda: of(gmvae, mixture={"y": torch.arange(CLASSES)}),
    "hierarchical VAE": lambda: of(hierarchical),
    "ladder VAE": lambda: of(ladder),
}
