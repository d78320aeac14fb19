"""A VAE without amortisation: the guide has separate parameters for each datum."""

import pyro
from pyro.nn import pyro_method
from torch import Tensor

from .vae import VAE


class PerDatumVAE(VAE):
    """A VAE without amortisation: q_b(z) has its own parameters for each datum b.

    ``model`` and ``guide`` take ``(x, rows)``: data (B, ...), and their row numbers (B,) in the
    data set, integers. The encoder is a family over a table, such as
    ``DiagonalNormal(nn.Embedding(num_data, DiagonalNormal.outputs(dim)))``; any family works. New
    data need new rows in the table and training.

    >>> import torch
    >>> from torch import nn
    >>> from pyro_vae import Bernoulli, DiagonalNormal, StandardNormal, Trace_ELBO, mlp
    >>> table = DiagonalNormal(nn.Embedding(100, DiagonalNormal.outputs(2)))
    >>> vae = PerDatumVAE(StandardNormal(2), Bernoulli(mlp(2, 16, 64)), table)
    >>> x, rows = torch.ones(3, 64), torch.tensor([5, 0, 99])
    >>> Trace_ELBO().estimate(vae.model, vae.guide, x, rows).loss.shape
    torch.Size([])
    """

    @pyro_method
    def model(self, x: Tensor, rows: Tensor) -> None:
        """p(x, z) = p(z) p(x | z)."""
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", self.prior())
            pyro.sample("x", self.decoder(z), obs=x)

    @pyro_method
    def guide(self, x: Tensor, rows: Tensor) -> None:
        """q_b(z)."""
        with pyro.plate("data", len(x)):
            pyro.sample("z", self.encoder(rows))
