"""A VAE without amortisation: a guide with parameters of its own for each datum."""

import pyro
from pyro.nn import pyro_method
from torch import Tensor

from .vae import VAE


class PerDatumVAE(VAE):
    """A VAE without amortisation: q_b(z) has parameters of its own for each datum b, called with its row number.

    The encoder is a family over a table, ``DiagonalNormal(nn.Embedding(num_data, DiagonalNormal.outputs(dim)))``; any family
    will do. ``model`` and ``guide`` take ``(x, rows)``; new data need rows of their own, and training.

    >>> from pyro_vae import Bernoulli, DiagonalNormal, StandardNormal, Trace_ELBO, mlp
    >>> vae = PerDatumVAE(StandardNormal(2), Bernoulli(mlp(2, 16, 64)), DiagonalNormal(nn.Embedding(100, 4)))
    >>> Trace_ELBO().estimate(vae.model, vae.guide, torch.ones(3, 64), torch.tensor([5, 0, 99])).loss.shape
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
