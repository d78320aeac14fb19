"""Values of a few levels, observed with known Gaussian noise."""

import math

import pyro.distributions as dist
import torch
from torch import Tensor, nn


class NearestLevel(nn.Module):
    """p(x | z) for x = 0, ..., ``levels``, where z = alpha v(x) + sigma noise, v from -1 to 1.

    p(x | z) is proportional to N(z; alpha v(x), sigma^2), v(x) = 2 x / levels - 1, where
    alpha^2 / sigma^2 = exp(``log_snr``) and alpha^2 + sigma^2 = 1. This is Bayes' rule for equally
    likely levels. It has no parameters. z and x are (..., D); x holds integers, of any type.

    Source: Kingma et al., *Variational Diffusion Models*, 2021, equation 8.

    Raises ``ValueError`` for fewer than one level, or a log SNR that is not finite.

    >>> NearestLevel(1, log_snr=4.0)(torch.tensor([[-1.0, 1.0]])).log_prob(torch.tensor([[0, 1]]))
    tensor([0.])
    """

    values: Tensor

    def __init__(self, levels: int, log_snr: float) -> None:
        super().__init__()
        if levels < 1 or not math.isfinite(log_snr):
            raise ValueError(
                f"expected at least one level and a finite log_snr, got {levels} and {log_snr}"
            )
        self.levels = levels
        self.register_buffer("values", torch.linspace(-1, 1, levels + 1))
        self.precision = 1 + math.exp(log_snr)
        self.alpha = 1 / math.sqrt(1 + math.exp(-log_snr))

    def forward(self, z: Tensor) -> dist.Distribution:
        means = self.alpha * self.values
        logits = self.precision * (z.unsqueeze(-1) * means - 0.5 * means.square())
        return dist.Categorical(logits=logits).to_event(1)
