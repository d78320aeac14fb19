"""The diagonal Laplace family."""

import pyro.distributions as dist
from torch import Tensor

from .conditional import Conditional
from .events import Events


class DiagonalLaplace(Conditional):
    """prod_d Laplace(loc_d, scale_d), with (loc, log scale) = net(h).

    z is (..., D). It has a sharper peak and heavier tails than a Normal.
    """

    layout = "loc, log scale"

    @staticmethod
    def outputs(dim: int) -> int:
        return 2 * dim

    def forward(self, *parents: Tensor) -> dist.Distribution:
        loc, log_scale = self.parameter_pair(*parents)
        return Events(dist.Laplace(loc, log_scale.exp()), self.event_dim)
