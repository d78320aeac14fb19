"""A VAE that clusters: a mixture of Gaussians in latent space."""

import pyro
import torch
from pyro.nn import PyroModule, pyro_method
from torch import Tensor, nn

from ..families.mixture import MixturePrior


class GMVAE(PyroModule):
    """A VAE whose latent space is a mixture of Gaussians, one for each cluster y.

    p(x, y, z) = p(y) p(z | y) p(x | z),    q(z | x)

    ``prior`` holds p(y) and p(z | y), ``decoder(z)`` is p(x | z), ``encoder(x)`` is q(z | x). The
    guide does not draw y: ``model`` marks y to be summed out exactly. With the ELBO this is VaDE
    with its optimal q(y | z) = p(y | z). Because x depends on y through z alone, the sum has the
    closed form p(z) = sum_y p(y) p(z | y). ``collapsed`` is this form of the model: it has the same
    density, and runs the decoder once instead of once for each y. Use it for training.

    Shapes: ``x`` is ``(B, ...)``; y is ``(B,)``, one of C clusters; ``z`` is ``(B, D)``.

    Source: Jiang, Zheng, Tan, Tang & Zhou, *Variational Deep Embedding*, 2017; Dilokthanakul et
    al., *Deep Unsupervised Clustering with Gaussian Mixture VAEs*, 2016.

    >>> from pyro_vae import Bernoulli, DiagonalNormal, mlp
    >>> from pyro_vae.families import MixturePrior
    >>> decoder, encoder = Bernoulli(mlp(2, 16, 64)), DiagonalNormal(mlp(64, 16, 4))
    >>> gmvae = GMVAE(MixturePrior(2, components=10), decoder, encoder)
    >>> gmvae.cluster(torch.ones(3, 64)).shape
    torch.Size([3, 10])
    """

    def __init__(self, prior: MixturePrior, decoder: nn.Module, encoder: nn.Module) -> None:
        super().__init__()
        self.prior = prior
        self.decoder = decoder
        self.encoder = encoder

    @pyro_method
    def model(self, x: Tensor) -> None:
        """p(x, y, z) = p(y) p(z | y) p(x | z), with y summed out."""
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", self.prior.classes(), infer={"enumerate": "parallel"})
            z = pyro.sample("z", self.prior.component(y))
            pyro.sample("x", self.decoder(z), obs=x)

    @pyro_method
    def collapsed(self, x: Tensor) -> None:
        """p(x, z) = p(z) p(x | z), with p(z) = sum_y p(y) p(z | y)."""
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", self.prior())
            pyro.sample("x", self.decoder(z), obs=x)

    @pyro_method
    def guide(self, x: Tensor) -> None:
        """q(z | x)."""
        with pyro.plate("data", len(x)):
            pyro.sample("z", self.encoder(x))

    @torch.no_grad()
    def cluster(self, x: Tensor, num_samples: int = 16) -> Tensor:
        """Return q(y | x) = E_q(z | x)[p(y | z)] from draws of z, of shape (B, C)."""
        z = self.encoder(x).sample((num_samples,))
        return self.prior.responsibilities(z).mean(0)

    @torch.no_grad()
    def sample(self, y: Tensor, *, mean: bool = False) -> Tensor:
        """Draw x ~ p(x | z), z ~ p(z | y) for each index y, or with ``mean`` return E[x | z]."""
        p = self.decoder(self.prior.component(y).sample())
        x: Tensor = p.mean if mean else p.sample()
        return x
