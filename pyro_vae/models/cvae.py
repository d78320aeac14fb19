"""The conditional VAE: p(y | x) with a latent z, which completes x by draws of y."""

import pyro
import torch
from pyro.nn import PyroModule, pyro_method
from torch import Tensor, nn


class CVAE(PyroModule):
    """A conditional VAE: p(z | x) p(y | x, z), with q(z | x, y).

    One part x of each datum is given, and the other part y is predicted. ``baseline(x)`` is a
    prediction p(y | x) without a latent. It is trained first, by :meth:`regression`. Its mean g(x)
    is then an input of the other parts and gets no gradient from them: ``prior(x, g)`` is p(z | x),
    ``decoder(x, g, z)`` is p(y | x, z) and ``encoder(x, g, y)`` is q(z | x, y).

    Shapes: ``x`` is ``(B, D_x)``, ``y`` is ``(B, D_y)`` and g has the shape of y.

    Source: Sohn, Lee & Yan, *Learning Structured Output Representation using Deep Conditional
    Generative Models*, 2015.

    >>> from pyro_vae import Bernoulli, DiagonalNormal, Trace_ELBO, mlp
    >>> prior = DiagonalNormal.over(lambda outputs: mlp(16 + 48, 32, outputs), 2)
    >>> encoder = DiagonalNormal.over(lambda outputs: mlp(16 + 48 + 48, 32, outputs), 2)
    >>> decoder, baseline = Bernoulli(mlp(16 + 48 + 2, 32, 48)), Bernoulli(mlp(16, 32, 48))
    >>> cvae = CVAE(prior, decoder, encoder, baseline)
    >>> x, y = torch.ones(3, 64).split([16, 48], -1)
    >>> Trace_ELBO().estimate(cvae.model, cvae.guide, x, y).loss.shape
    torch.Size([])
    >>> cvae.complete(x).shape
    torch.Size([3, 48])
    """

    def __init__(
        self, prior: nn.Module, decoder: nn.Module, encoder: nn.Module, baseline: nn.Module
    ) -> None:
        super().__init__()
        self.prior = prior
        self.decoder = decoder
        self.encoder = encoder
        self.baseline = baseline

    @pyro_method
    def model(self, x: Tensor, y: Tensor) -> None:
        """p(z | x) p(y | x, z)."""
        with pyro.plate("data", len(x)):
            g = self.guess(x)
            z = pyro.sample("z", self.prior(x, g))
            pyro.sample("y", self.decoder(x, g, z), obs=y)

    @pyro_method
    def guide(self, x: Tensor, y: Tensor) -> None:
        """q(z | x, y)."""
        with pyro.plate("data", len(x)):
            pyro.sample("z", self.encoder(x, self.guess(x), y))

    @pyro_method
    def regression(self, x: Tensor, y: Tensor) -> None:
        """The baseline p(y | x), a model without latents."""
        with pyro.plate("data", len(x)):
            pyro.sample("y", self.baseline(x), obs=y)

    @torch.no_grad()
    def guess(self, x: Tensor) -> Tensor:
        """The mean g(x) of the baseline p(y | x)."""
        mean: Tensor = self.baseline(x).mean
        return mean

    @torch.no_grad()
    def complete(self, x: Tensor, *, mean: bool = False) -> Tensor:
        """Draw z ~ p(z | x); return a draw y ~ p(y | x, z), or with ``mean`` E[y | x, z]."""
        g = self.guess(x)
        p = self.decoder(x, g, self.prior(x, g).sample())
        y: Tensor = p.mean if mean else p.sample()
        return y
