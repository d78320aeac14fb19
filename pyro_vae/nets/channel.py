"""Networks of guides for sparse channels: see :class:`pyro_vae.models.SparseChannel`."""

import torch
from torch import Tensor, nn


class SupportLogits(nn.Module):
    """Log odds of L independent bits (..., L) -> logits of the S supports (..., S).

    ``supports`` is (S, L), with a row of bits for each support.

    >>> SupportLogits(torch.tensor([[0.0], [1.0]]))(torch.tensor([2.0]))
    tensor([0., 2.])
    """

    supports: Tensor

    def __init__(self, supports: Tensor) -> None:
        super().__init__()
        self.register_buffer("supports", supports)

    def forward(self, log_odds: Tensor) -> Tensor:
        return log_odds @ self.supports.T


class FactorisedTaps(nn.Module):
    """(y, bits) -> (loc, 2 log scale) of L taps, each of which depends only on its own bit.

    Where the bit is 1, ``net(y)`` gives loc and 2 log scale. Where it is 0, loc is 0 and
    2 log scale is one parameter for all taps. Shapes: (..., M + L) -> (..., 2 L).

    >>> FactorisedTaps(nn.Linear(5, 6), taps=3)(torch.zeros(2, 8)).shape
    torch.Size([2, 6])
    """

    def __init__(self, net: nn.Module, taps: int) -> None:
        super().__init__()
        self.net = net
        self.taps = taps
        self.idle = nn.Parameter(torch.zeros(()))

    def forward(self, h: Tensor) -> Tensor:
        y, bits = h[..., : -self.taps], h[..., -self.taps :]
        loc, log_variance = self.net(y).chunk(2, -1)
        return torch.cat([bits * loc, bits * log_variance + (1 - bits) * self.idle], -1)
