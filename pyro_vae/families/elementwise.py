"""The base class of distributions that are elementwise in their parameters."""

from typing import Any, Self

import pyro.distributions as dist
import torch
from torch import Tensor


class Elementwise(dist.TorchDistribution):
    """A distribution whose batch shape is that of its parameters, named in ``arg_constraints``."""

    def __init__(self, validate_args: bool | None = None, **parameters: Tensor) -> None:
        values = torch.broadcast_tensors(*parameters.values())
        for name, value in zip(parameters, values, strict=True):
            setattr(self, name, value)
        super().__init__(values[0].shape, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Self:
        new: Self = copied(self)
        for name in self.arg_constraints:
            setattr(new, name, getattr(self, name).expand(batch_shape))
        new._batch_shape = torch.Size(batch_shape)
        return new

    def _uniform(self, sample_shape: Any, like: Tensor) -> Tensor:
        return torch.rand(self._extended_shape(sample_shape), dtype=like.dtype, device=like.device)


def copied(distribution: Any) -> Any:
    """A shallow copy of a distribution; ``copy.copy`` takes five times as long."""
    new = object.__new__(type(distribution))
    new.__dict__.update(distribution.__dict__)
    return new


def unexpanded(value: Tensor) -> Tensor:
    """Reduce expanded dimensions to size 1, so that equal values are computed only once."""
    strides = value.stride()
    if 0 not in strides or not value.numel():
        return value
    return value[tuple(slice(0, 1) if stride == 0 else slice(None) for stride in strides)]
