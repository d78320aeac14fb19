"""A VAE of sequences: one latent vector, and an autoregressive decoder."""

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule, pyro_method
from torch import Tensor, nn


class SequenceVAE(PyroModule):
    """p(x, z) = p(z) prod_t p(x_t | x_1, ..., x_{t-1}, z) and q(z | x).

    ``decoder(x, z)`` is a network whose output at step t, (B, T, H), depends on the steps before t
    only. ``symbol(h)`` is p(x_t | h_t), ``prior()`` is p(z), ``encoder(x)`` is q(z | x).

    Shapes: ``x`` is (B, T), integers; ``z`` is (B, D). The classes of symbols start at 1. The class
    0 is the end symbol of a sequence that is shorter than T; the symbols after it are masked.

    Source: Bowman et al., *Generating Sentences from a Continuous Space*, 2016.

    >>> from pyro_vae.families import Categorical
    >>> from pyro_vae.nets import RecurrentDecoder, RecurrentEncoder
    >>> q = DiagonalNormal(RecurrentEncoder(30, 4, hidden=8))
    >>> p = RecurrentDecoder(30, 2, hidden=8)
    >>> text = SequenceVAE(StandardNormal(2), p, Categorical(mlp(8, 30)), q)
    >>> text.generate(torch.zeros(3, 2), length=7).shape
    torch.Size([3, 7])
    """

    def __init__(
        self, prior: nn.Module, decoder: nn.Module, symbol: nn.Module, encoder: nn.Module
    ) -> None:
        super().__init__()
        self.prior = prior
        self.decoder = decoder
        self.symbol = symbol
        self.encoder = encoder

    @pyro_method
    def model(self, x: Tensor) -> None:
        """p(x, z) = p(z) prod_t p(x_t | x_<t, z)."""
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", self.prior())
            pyro.sample("x", self.likelihood(x, z), obs=x)

    @pyro_method
    def guide(self, x: Tensor) -> None:
        """q(z | x)."""
        with pyro.plate("data", len(x)):
            pyro.sample("z", self.encoder(x))

    def likelihood(self, x: Tensor, z: Tensor) -> dist.Distribution:
        """prod_t p(x_t | x_<t, z) up to the end of each sequence, a distribution of (B, T)."""
        each = self.symbol(self.decoder(x, z))
        return each.mask(until_end(x)).to_event(1)

    @torch.no_grad()
    def generate(self, z: Tensor, length: int, *, greedy: bool = False) -> Tensor:
        """Draw x ~ p(x | z) symbol by symbol, (B, length); ``greedy`` takes the most probable."""
        x = torch.zeros(len(z), length, dtype=torch.long, device=z.device)
        for t in range(length):
            p = self.symbol(self.decoder(x[:, : t + 1], z)[:, t])
            x[:, t] = p.mode if greedy else p.sample()
        return x * until_end(x)


def until_end(x: Tensor) -> Tensor:
    """True for each step up to the end of its sequence, including the 0 that ends it; (B, T).

    >>> until_end(torch.tensor([[3, 2, 0, 0], [3, 2, 5, 4]])).int()
    tensor([[1, 1, 1, 0],
            [1, 1, 1, 1]], dtype=torch.int32)
    """
    before = torch.cat([torch.ones_like(x[:, :1]), x[:, :-1]], 1)
    return (before != 0).cummin(1).values
