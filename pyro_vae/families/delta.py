"""The Delta family: all mass at one value."""

import pyro.distributions as dist
from torch import Tensor

from .conditional import Conditional


class Delta(Conditional):
    """All mass at z = net(h): a plain autoencoder, or maximum a posteriori where there is a prior.

    z is (..., D). By convention log q(z | x) = 0, so the ELBO becomes log p(x, z). This is not a
    bound of log p(x): the true log q(z | x) is infinite.

    >>> import torch
    >>> from torch import nn
    >>> Delta(nn.Identity())(torch.ones(5, 3)).log_prob(torch.ones(5, 3))
    tensor([0., 0., 0., 0., 0.])
    """

    layout = "z"

    def forward(self, *parents: Tensor) -> dist.Distribution:
        return dist.Delta(self.parameter(*parents), event_dim=self.event_dim)
