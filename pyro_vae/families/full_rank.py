"""The Normal family with a full covariance."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

from .conditional import Conditional


class FullRankNormal(Conditional):
    """N(loc, L L') with L = diag(scale) (I + B), from (loc, log scale, B) = net(h).

    z is (..., D). B is strictly lower triangular; the network gives its entries row by row. Row d
    of L is proportional to scale_d, so the posterior becomes narrower in one dimension by its scale
    alone.

    >>> from torch import nn
    >>> q = FullRankNormal.over(lambda outputs: nn.Linear(8, outputs), 3)
    >>> q(torch.ones(5, 8)).sample().shape
    torch.Size([5, 3])
    """

    layout = "loc, log scale, B"

    @staticmethod
    def outputs(dim: int) -> int:
        return 2 * dim + dim * (dim - 1) // 2

    def forward(self, *parents: Tensor) -> dist.Distribution:
        output = self.parameter(*parents)
        size = output.shape[-1]
        # the positive root of dim (dim + 3) / 2 = size
        dim = self.checked_dim((math.isqrt(9 + 8 * size) - 3) // 2, size)
        loc, log_scale, below = torch.split_with_sizes(output, [dim, dim, size - 2 * dim], -1)
        rows = torch.diag_embed(torch.ones_like(loc))
        row, column = torch.tril_indices(dim, dim, -1, device=output.device)
        rows[..., row, column] = below
        return FullRank(loc, scale_tril=log_scale.exp().unsqueeze(-1) * rows)


class FullRank(dist.MultivariateNormal):
    """Pyro's ``MultivariateNormal``, with one matrix product for all draws of a datum."""

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        shape = self._extended_shape(sample_shape)
        eps = torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device)
        z: Tensor = self.loc + _columns(torch.matmul, self._unbroadcasted_scale_tril, eps)
        return z

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        tril = self._unbroadcasted_scale_tril
        eps = _columns(partial(torch.linalg.solve_triangular, upper=False), tril, value - self.loc)
        half_log_det: Tensor = tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        distance = eps.square().sum(-1)
        return -0.5 * (eps.shape[-1] * math.log(2 * math.pi) + distance) - half_log_det


def _columns(operation: Callable[[Tensor, Tensor], Tensor], matrix: Tensor, h: Tensor) -> Tensor:
    """``operation(matrix, h)`` for each vector of h, (..., D).

    The leading dimensions of h that the matrix does not have become columns of one matrix.
    """
    lead = h.ndim + 1 - matrix.ndim
    columns = h.reshape(-1, *h.shape[lead:]).movedim(0, -1)
    return operation(matrix, columns).movedim(-1, 0).reshape(h.shape)
