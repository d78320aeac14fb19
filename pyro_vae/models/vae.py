"""The variational autoencoder as two Pyro programs."""

from typing import cast

import pyro
import torch
from pyro.nn import PyroModule, pyro_method
from torch import Tensor, nn

from ..families.moments import mean as mean_of
from ..programs.checks import at_least


class VAE(PyroModule):
    """A variational autoencoder: p(x, z) = p(z) p(x | z) and q(z | x).

    ``prior()`` is p(z), ``decoder(z)`` is p(x | z) and ``encoder(x)`` is q(z | x). They are modules
    whose call returns a distribution (see :mod:`pyro_vae.families`).

    Shapes: ``x`` is ``(B, ...)``, one datum per row; ``z`` is ``(B, D)``.

    Source: Kingma & Welling, *Auto-Encoding Variational Bayes*, 2013.

    >>> from pyro_vae import Bernoulli, DiagonalNormal, StandardNormal, mlp
    >>> vae = VAE(StandardNormal(2), Bernoulli(mlp(2, 16, 64)), DiagonalNormal(mlp(64, 16, 4)))
    >>> vae.sample(5).shape
    torch.Size([5, 64])
    """

    def __init__(self, prior: nn.Module, decoder: nn.Module, encoder: nn.Module) -> None:
        super().__init__()
        self.prior = prior
        self.decoder = decoder
        self.encoder = encoder

    @pyro_method
    def model(self, x: Tensor) -> None:
        """p(x, z) = p(z) p(x | z)."""
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", self.prior())
            pyro.sample("x", self.decoder(z), obs=x)

    @pyro_method
    def guide(self, x: Tensor) -> None:
        """q(z | x)."""
        with pyro.plate("data", len(x)):
            pyro.sample("z", self.encoder(x))

    @torch.no_grad()
    def sample(self, n: int, *, mean: bool = False) -> Tensor:
        """Draw ``n`` times z ~ p(z); return draws x ~ p(x | z), or with ``mean`` E[x | z].

        Raises ``ValueError`` for ``n`` below 1.
        """
        at_least(1, n=n)
        p = self.decoder(self.prior().sample((n,)))
        return cast(Tensor, p.mean if mean else p.sample())

    @torch.no_grad()
    def encode(self, x: Tensor, *, mean: bool = True) -> Tensor:
        """Return the mean of q(z | x), ``(B, D)``, or without ``mean`` one draw from it.

        Raises ``TypeError`` where ``x`` is not a tensor.
        """
        if not isinstance(x, Tensor):
            raise TypeError(f"expected x as a tensor, got {type(x).__name__}")
        q = self.encoder(x)
        return mean_of(q) if mean else q.sample()

    @torch.no_grad()
    def reconstruct(self, x: Tensor, *, mean: bool = True) -> Tensor:
        """Return E[x | z] at z = E_q[z | x]; without ``mean`` a draw x' ~ p(x' | z), z ~ q(z | x).

        Raises ``TypeError`` where ``x`` is not a tensor.
        """
        p = self.decoder(self.encode(x, mean=mean))
        return cast(Tensor, p.mean if mean else p.sample())
