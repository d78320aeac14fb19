"""A categorical distribution over very many classes, numbered by frequency."""

from collections.abc import Sequence
from typing import Any, ClassVar, Self

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor, nn

from ..nets.precision import HALF


class AdaptiveCategorical(nn.Module):
    """p(x | h) = p(cluster | h) p(x | cluster, h) over classes x = 0, ..., C - 1.

    Shapes: h is (..., ``features``), x is (...). The classes below ``cutoffs[0]`` are in the head.
    Each further cluster uses a projection of h to half the size of the previous one. A density
    costs the head and one cluster, so the most frequent classes should have the smallest numbers.

    Source: Grave et al., *Efficient softmax approximation for GPUs*, 2017. The density is exact:
    the probabilities of all classes sum to one.

    >>> p = AdaptiveCategorical(8, 100, cutoffs=[10, 40])(torch.zeros(5, 8))
    >>> p.log_prob(torch.arange(100).unsqueeze(1)).exp().sum(0).round(decimals=3)
    tensor([1., 1., 1., 1., 1.], grad_fn=<RoundBackward1>)
    """

    def __init__(self, features: int, classes: int, cutoffs: Sequence[int]) -> None:
        super().__init__()
        self.softmax = nn.AdaptiveLogSoftmaxWithLoss(features, classes, cutoffs, 2.0)

    def forward(self, h: Tensor) -> dist.Distribution:
        if h.dtype in HALF:  # from layers that autocast has rounded
            h = h.to(self.softmax.head.weight.dtype)
        return AdaptiveDistribution(h, self.softmax)


class AdaptiveDistribution(dist.TorchDistribution):
    """The distribution of :class:`AdaptiveCategorical`, given h of shape (..., features).

    Autocast is off in its layers, because densities need the precision of the parameters.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}

    def __init__(self, h: Tensor, softmax: nn.AdaptiveLogSoftmaxWithLoss) -> None:
        self.h = h
        self.softmax = softmax
        super().__init__(h.shape[:-1])

    @property
    def support(self) -> Any:
        return constraints.integer_interval(0, self.softmax.n_classes - 1)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Self:
        return type(self)(self.h.expand(*batch_shape, self.h.shape[-1]), self.softmax)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        shape = torch.broadcast_shapes(value.shape, self.batch_shape)
        h = self.h.expand(*shape, self.h.shape[-1]).flatten(0, -2)
        with self._full_precision():
            flat = self.softmax(h, value.expand(shape).flatten()).output
        log_prob: Tensor = flat.view(shape)
        return log_prob

    def sample(self, sample_shape: Any = ()) -> Tensor:
        with torch.no_grad(), self._full_precision():
            logits = self.softmax.log_prob(self.h.flatten(0, -2))
            draws = dist.Categorical(logits=logits).sample(sample_shape)
            shaped: Tensor = draws.view(self._extended_shape(sample_shape))
            return shaped

    @property
    def mode(self) -> Tensor:
        """The most probable class."""
        with self._full_precision():
            return self.softmax.predict(self.h.flatten(0, -2)).view(self.batch_shape)

    def _full_precision(self) -> torch.autocast:
        return torch.autocast(self.h.device.type, enabled=False)
