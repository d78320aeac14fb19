"""The Normal family with a full covariance."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import pyro.distributions as dist
import torch
from torch import Tensor

from .conditional import Conditional, solve_outputs


class FullRankNormal(Conditional):
    """N(loc, L L'), L = diag(scale) (I + B), with (loc, log scale, B below the diagonal, row by row) = net(h).

    Rows in units of their own scale: a dimension becomes certain by its scale alone, without D entries shrinking with it.

    >>> FullRankNormal(nn.Linear(8, FullRankNormal.outputs(3)))(torch.ones(5, 8)).sample().shape
    torch.Size([5, 3])
    """

    @staticmethod
    def outputs(dim: int) -> int:
        return 2 * dim + dim * (dim - 1) // 2

    def forward(self, h: Tensor) -> dist.Distribution:
        output = self.parameter(h)
        dim = solve_outputs(output.shape[-1], self.outputs, type(self).__name__)
        loc, log_scale, below = torch.split_with_sizes(output, [dim, dim, dim * (dim - 1) // 2], -1)
        rows = torch.diag_embed(torch.ones_like(loc))
        row, column = torch.tril_indices(dim, dim, -1, device=h.device)
        rows[..., row, column] = below
        return FullRank(loc, scale_tril=log_scale.exp().unsqueeze(-1) * rows)


class FullRank(dist.MultivariateNormal):  # type: ignore[misc]
    """Pyro's, with all the draws of a datum in one product with its Cholesky factor, instead of one each."""

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        eps = torch.randn(
            self._extended_shape(sample_shape), dtype=self.loc.dtype, device=self.loc.device
        )
        return cast(Tensor, self.loc + _columns(torch.matmul, self._unbroadcasted_scale_tril, eps))

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        tril = self._unbroadcasted_scale_tril
        eps = _columns(partial(torch.linalg.solve_triangular, upper=False), tril, value - self.loc)
        half_log_det = tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        return cast(
            Tensor,
            -0.5 * (eps.shape[-1] * math.log(2 * math.pi) + eps.square().sum(-1)) - half_log_det,
        )


def _columns(operation: Callable[[Tensor, Tensor], Tensor], matrix: Tensor, h: Tensor) -> Tensor:
    """``operation(matrix, h)`` for each vector of h, (..., D), those along the dimensions that the matrix lacks side by side."""
    lead = h.ndim + 1 - matrix.ndim
    columns = h.reshape(-1, *h.shape[lead:]).movedim(0, -1)
    return operation(matrix, columns).movedim(-1, 0).reshape(h.shape)
