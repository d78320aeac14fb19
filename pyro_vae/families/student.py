"""Student's t: real values with heavy tails."""

from typing import ClassVar

import pyro.distributions as dist
import torch.nn.functional as F
from torch import Tensor, nn

from .conditional import Conditional
from .events import Events


class StudentT(Conditional):
    """Student's t for each dimension, with (loc, scale, degrees of freedom) from net(h).

    scale = softplus(s) + ``min_scale``, degrees of freedom = softplus(d) + 3, (loc, s, d) = net(h).
    So the variance is finite and the density is bounded. Values are (..., D).

    Source: Mattei & Frellsen, *MIWAE: Deep Generative Modelling and Imputation of Incomplete Data*,
    2019.

    Raises ``ValueError`` for a ``min_scale`` that is not positive.

    >>> import torch
    >>> p = StudentT.over(lambda outputs: nn.Linear(8, outputs), 3)
    >>> p(torch.ones(5, 8)).sample().shape
    torch.Size([5, 3])
    """

    layout = "loc, scale before softplus, degrees of freedom before softplus"
    LEAST_DEGREES: ClassVar[float] = 3.0

    def __init__(self, net: nn.Module, min_scale: float = 1e-3, event_dim: int = 1) -> None:
        super().__init__(net, event_dim)
        if not min_scale > 0:
            raise ValueError(f"expected a positive min_scale, got {min_scale}")
        self.min_scale = min_scale

    @staticmethod
    def outputs(dim: int) -> int:
        return 3 * dim

    def forward(self, *parents: Tensor) -> dist.Distribution:
        output = self.parameter(*parents)
        self.checked_dim(output.shape[-self.event_dim] // 3, output.shape[-self.event_dim])
        loc, scale, degrees = output.chunk(3, -self.event_dim)
        scale = F.softplus(scale) + self.min_scale
        degrees = F.softplus(degrees) + self.LEAST_DEGREES
        return Events(dist.StudentT(degrees, loc, scale), self.event_dim)
