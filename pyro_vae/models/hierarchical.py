"""A VAE of several stochastic layers, whose guide goes from the data up to the top layer."""

from collections.abc import Sequence

import pyro
import torch
from pyro.nn import PyroModule, pyro_method
from torch import Tensor, nn


class HierarchicalVAE(PyroModule):
    """A VAE of L stochastic layers with a bottom-up guide.

    p(x, z) = p(z_L) p(z_{L-1} | z_L) ... p(z_1 | z_2) p(x | z_1)
    q(z | x) = q(z_1 | x) q(z_2 | z_1) ... q(z_L | z_{L-1})

    ``prior()`` is p(z_L) and ``decoder(z_1)`` is p(x | z_1). ``layers[l - 1](z_{l+1})`` is
    p(z_l | z_{l+1}) for l = 1, ..., L - 1. ``encoders[0](x)`` is q(z_1 | x), and
    ``encoders[l](z_l)`` is q(z_{l+1} | z_l). With L = 1 this is the plain VAE.

    Shapes: ``x`` is ``(B, ...)``; ``z_l``, the site "zl", is ``(B, D_l)``.

    Source: Rezende, Mohamed & Wierstra, *Stochastic Backpropagation*, 2014; Burda, Grosse &
    Salakhutdinov, *Importance Weighted Autoencoders*, 2015.

    Raises ``ValueError`` unless there is one encoder more than ``layers``.

    >>> from pyro_vae import Bernoulli, DiagonalNormal, StandardNormal, mlp
    >>> decoder, layers = Bernoulli(mlp(3, 16, 64)), [DiagonalNormal(mlp(2, 16, 6))]
    >>> encoders = [DiagonalNormal(mlp(64, 16, 6)), DiagonalNormal(mlp(3, 16, 4))]
    >>> HierarchicalVAE(StandardNormal(2), layers, decoder, encoders).sample(5).shape
    torch.Size([5, 64])
    """

    def __init__(
        self,
        prior: nn.Module,
        layers: Sequence[nn.Module],
        decoder: nn.Module,
        encoders: Sequence[nn.Module],
    ) -> None:
        super().__init__()
        if len(encoders) != len(layers) + 1:
            raise ValueError(
                f"expected {len(layers) + 1} encoders for {len(layers)} layers below the prior, "
                f"got {len(encoders)}"
            )
        self.prior = prior
        self.layers = nn.ModuleList(layers)
        self.decoder = decoder
        self.encoders = nn.ModuleList(encoders)

    @pyro_method
    def model(self, x: Tensor) -> None:
        """p(x, z), from the top layer down."""
        with pyro.plate("data", len(x)):
            z = pyro.sample(f"z{len(self.encoders)}", self.prior())
            for index in range(len(self.layers), 0, -1):
                z = pyro.sample(f"z{index}", self.layers[index - 1](z))
            pyro.sample("x", self.decoder(z), obs=x)

    @pyro_method
    def guide(self, x: Tensor) -> None:
        """q(z | x), from the data up."""
        with pyro.plate("data", len(x)):
            h = x
            for index, encoder in enumerate(self.encoders, 1):
                h = pyro.sample(f"z{index}", encoder(h))

    @torch.no_grad()
    def sample(self, n: int, *, mean: bool = False) -> Tensor:
        """Draw ``n`` times z ~ p(z); return draws x ~ p(x | z_1), or with ``mean`` E[x | z_1]."""
        z = self.prior().sample((n,))
        for layer in reversed(self.layers):
            z = layer(z).sample()
        p = self.decoder(z)
        x: Tensor = p.mean if mean else p.sample()
        return x
