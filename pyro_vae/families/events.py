"""Events of independent numbers: vectors, whose log-probability is a sum over their elements."""

from collections.abc import Callable
from typing import Any, Self

import pyro.distributions as dist
import torch
from torch import Tensor

from .elementwise import copied

PART = 1 << 19
"""The number of elements whose log-probabilities, 2 MiB, are computed before they are summed."""


class Events(dist.Independent):
    """A batch of events of independent numbers: ``.to_event`` in fewer operations.

    A plate expands the distribution of each of its sites, most of which have its size already.

    >>> Events(dist.Normal(torch.zeros(2, 3), 1.0), 1).log_prob(torch.zeros(2, 3)).shape
    torch.Size([2])
    """

    def expand(self, batch_shape: Any, _instance: Any = None) -> Self:
        if torch.Size(batch_shape) != self.batch_shape:
            expanded: Self = super().expand(batch_shape, _instance)
            return expanded
        same: Self = copied(self)
        same.base_dist = copied(self.base_dist)
        same._validate_args = self._validate_args  # what holds now, whatever Pyro's flag is later
        return same

    def log_prob(self, value: Tensor) -> Tensor:
        log_prob: Tensor = self.base_dist.log_prob(value)
        dims = tuple(range(-self.reinterpreted_batch_ndims, 0))
        return log_prob.sum(dims) if dims else log_prob

    def grouped(self, value: Tensor, *tensors: Tensor) -> bool:
        """Whether the sum may be one over groups: of vectors, without validation.

        All ``tensors`` must be in float32 and have the shape of the value.
        """
        if self._validate_args or self.reinterpreted_batch_ndims != 1:
            return False
        return all(x.shape == value.shape and x.dtype == torch.float32 for x in tensors)


def by_parts(log_prob: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """Log-probabilities of vectors (R, D), of some rows at a time, which stay in the cache.

    Tensors of other shapes, without values or on a GPU are taken whole: a compiler, which traces
    tensors without values, makes one loop of all operations itself.
    """
    first = tensors[0]
    if first.ndim != 2 or not len(first) or type(first) is not Tensor or first.is_cuda:
        return log_prob(*tensors)
    rows = max(PART // max(first.shape[-1], 1), 1)
    parts = zip(*(tensor.split(rows) for tensor in tensors), strict=True)
    return torch.cat([log_prob(*part) for part in parts])


def sum_with_logs(terms: Tensor, factors: Tensor, most: int) -> Tensor:
    """sum_i (term_i + log factor_i) over the last dimension, with one logarithm for a group.

    At most ``most`` factors are multiplied, so that no product leaves the range of float32, 2^-126
    to 2^128. Terms have the same groups, so that a compiler makes one loop of both.
    """
    size = factors.shape[-1]
    width = next((width for width in range(min(most, size), 0, -1) if size % width == 0), 1)
    groups = size // width, width
    logs = factors.unflatten(-1, groups).prod(-1).log_()
    total: Tensor = terms.unflatten(-1, groups).sum(-1).add_(logs).sum(-1)
    return total
