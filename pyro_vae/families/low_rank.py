"""The Normal family with a covariance of low rank plus a diagonal."""

import copy
import math
from typing import Any, ClassVar, Self

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor, nn

from .conditional import Conditional, at_least_one


class LowRankNormal(Conditional):
    """N(loc, W W' + diag(scale^2)) with W of shape (D, rank), from (loc, 2 log scale, W) = net(h).

    Source: Rezende, Mohamed & Wierstra, *Stochastic Backpropagation*, 2014, section 4.3.

    Raises ``ValueError`` for a rank below 1.

    >>> q = LowRankNormal.over(lambda outputs: nn.Linear(8, outputs), 3, rank=2)
    >>> q(torch.ones(5, 8)).sample().shape
    torch.Size([5, 3])
    """

    layout = "loc, 2 log scale, W"

    def __init__(self, net: nn.Module, rank: int = 1) -> None:
        super().__init__(net)
        self.rank = at_least_one(rank=rank)

    @staticmethod
    def outputs(dim: int, rank: int = 1) -> int:
        return (2 + at_least_one(rank=rank)) * dim

    def needs(self, dim: int) -> int:
        return self.outputs(dim, self.rank)

    def extra_repr(self) -> str:
        return f"rank={self.rank}"

    def forward(self, *parents: Tensor) -> dist.Distribution:
        output = self.parameter(*parents)
        size = output.shape[-1]
        dim = self.checked_dim(size // (2 + self.rank), size)
        loc, log_variance, factor = torch.split_with_sizes(output, [dim, dim, dim * self.rank], -1)
        factor = factor.reshape(*factor.shape[:-1], dim, self.rank)
        return LowRank(loc, factor, (0.5 * log_variance).exp())


class LowRank(dist.TorchDistribution):
    """N(loc, W W' + diag(scale^2)); the density uses the Woodbury identity and costs O(D rank^2).

    Unlike ``torch.distributions.LowRankMultivariateNormal`` it does not synchronise the device to
    check the Cholesky factor.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    support = constraints.real_vector
    has_rsample = True

    def __init__(self, loc: Tensor, factor: Tensor, scale: Tensor) -> None:
        self.loc = loc
        self.factor = factor
        self.scale = scale
        super().__init__(loc.shape[:-1], loc.shape[-1:])

    def expand(self, batch_shape: Any, _instance: Any = None) -> Self:
        new = copy.copy(self)
        new.loc = self.loc.expand(*batch_shape, *self.loc.shape[-1:])
        new._batch_shape = torch.Size(batch_shape)
        return new

    @property
    def mean(self) -> Tensor:
        return self.loc

    @property
    def variance(self) -> Tensor:
        return (self.factor.square().sum(-1) + self.scale.square()).expand(self.loc.shape)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        shape = self._extended_shape(sample_shape)
        common = self._noise((*shape[:-1], self.factor.shape[-1], 1))
        correlated = (self.factor @ common).squeeze(-1)
        return self.loc + correlated + self.scale * self._noise(shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """-1/2 (D log 2 pi + log|S| + d' S^-1 d), with d = value - loc and S the covariance.

        S^-1 and |S| come from the Cholesky factor of I + V'V, V = W / scale.
        """
        if self._validate_args:
            self._validate_sample(value)
        white = (value - self.loc) / self.scale
        factor = self.factor / self.scale.unsqueeze(-1)
        identity = torch.eye(factor.shape[-1], dtype=factor.dtype, device=factor.device)
        tril = torch.linalg.cholesky_ex(factor.mT @ factor + identity).L
        projected = factor.mT @ white.unsqueeze(-1)
        explained = torch.linalg.solve_triangular(tril, projected, upper=False).squeeze(-1)
        half_log_det = tril.diagonal(dim1=-2, dim2=-1).log().sum(-1) + self.scale.log().sum(-1)
        distance = white.square().sum(-1) - explained.square().sum(-1)
        result: Tensor = -0.5 * (white.shape[-1] * math.log(2 * math.pi) + distance) - half_log_det
        return result

    def _noise(self, shape: Any) -> Tensor:
        return torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device)
