"""Batch normalisation of a posterior mean."""

import torch
from torch import Tensor, nn


class BatchNormMean(nn.Module):
    """A network whose first ``dim`` outputs, the posterior means, are normalised over the batch.

    mu_d -> spread (mu_d - mean_d) / std_d + shift_d, with a learned shift and a fixed spread

    With a diagonal Normal and the prior N(0, I), the mean KL of the batch is then at least
    D spread^2 / 2, whatever the decoder is.

    Source: Zhu et al., *A Batch Normalized Inference Network Keeps the KL Vanishing Away*, 2020
    (BN-VAE).

    Raises ``ValueError`` for a spread that is not positive.

    >>> from pyro_vae import DiagonalNormal, mlp
    >>> q = DiagonalNormal(BatchNormMean(mlp(64, 16, 4), dim=2, spread=0.5))
    >>> q(torch.rand(100, 64)).mean.std(0, unbiased=False).round(decimals=2).tolist()
    [0.5, 0.5]
    """

    def __init__(self, net: nn.Module, dim: int, spread: float = 0.5) -> None:
        super().__init__()
        if spread <= 0:
            raise ValueError(f"expected a positive spread, got {spread}")
        self.net = net
        self.dim = dim
        self.spread = spread
        self.norm = nn.BatchNorm1d(dim, affine=False)
        self.shift = nn.Parameter(torch.zeros(dim))

    def forward(self, h: Tensor) -> Tensor:
        output = self.net(h)
        loc = output[..., : self.dim]
        normal = self.norm(loc.reshape(-1, self.dim)).reshape(loc.shape)
        return torch.cat([self.spread * normal + self.shift, output[..., self.dim :]], -1)
