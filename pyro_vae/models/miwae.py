"""A VAE of data with missing entries: only observed entries are in the likelihood."""

import pyro
import torch
from pyro.nn import PyroModule, pyro_method
from torch import Tensor, nn

from ..families.missing import masked


class MIWAE(PyroModule):
    """p(z) prod_{d observed} p(x_d | z), and q(z | x), whose input has 0 at missing entries.

    ``model`` and ``guide`` take ``(x, observed)``: data (B, D) and a boolean mask of their shape.
    The values of x at missing entries do not matter, but they must be finite and in the support.
    If entries are missing at random, :class:`pyro_vae.IWAE` of this pair is a lower bound of
    log p(x_observed); :func:`pyro_vae.evaluation.impute` with ``with_mask=True`` gives
    E[x_missing | x_observed]. The elements of the likelihood must be independent given z.

    Source: Mattei & Frellsen, *MIWAE: Deep Generative Modelling and Imputation of Incomplete Data*,
    2019.

    >>> from pyro_vae import IWAE, DiagonalNormal, StandardNormal, mlp
    >>> from pyro_vae.families import StudentT
    >>> miwae = MIWAE(
    ...     StandardNormal(2), StudentT(mlp(2, 16, 12)), DiagonalNormal(mlp(4, 16, 4))
    ... )
    >>> x = torch.randn(3, 4)
    >>> IWAE(5).estimate(miwae.model, miwae.guide, x, x > 0).loss.shape
    torch.Size([])
    """

    def __init__(self, prior: nn.Module, decoder: nn.Module, encoder: nn.Module) -> None:
        super().__init__()
        self.prior = prior
        self.decoder = decoder
        self.encoder = encoder

    @pyro_method
    def model(self, x: Tensor, observed: Tensor) -> None:
        """p(z) p(x_observed | z)."""
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", self.prior())
            pyro.sample("x", masked(self.decoder(z), observed), obs=x)

    @pyro_method
    def guide(self, x: Tensor, observed: Tensor) -> None:
        """q(z | x_observed)."""
        with pyro.plate("data", len(x)):
            pyro.sample("z", self.encoder(torch.where(observed, x, 0.0)))
