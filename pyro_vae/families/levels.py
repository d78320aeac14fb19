"""Values of a few levels, observed with known Gaussian noise."""

import math

import pyro.distributions as dist
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .conditional import Conditional, at_least_one
from .normal import NormalDistribution


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
    log_snr: Tensor

    def __init__(self, levels: int, log_snr: float) -> None:
        super().__init__()
        if levels < 1 or not math.isfinite(log_snr):
            raise ValueError(
                f"expected at least one level and a finite log_snr, got {levels} and {log_snr}"
            )
        self.levels = levels
        self.register_buffer("values", torch.linspace(-1, 1, levels + 1))
        self.register_buffer("log_snr", torch.tensor(float(log_snr)))

    def forward(self, z: Tensor) -> dist.Distribution:
        logits = evidence(z, self.log_snr, self.values).transpose(-1, -2)
        return dist.Categorical(logits=logits).to_event(1)


class Levels(Conditional):
    """The Normal with the mean and the variance of p(v | z), z = alpha v + sigma noise.

    v has the L + 1 values v_k = 2 k / L - 1, where L = ``levels``. For each dimension

    log p(v_k | z) = log N(z; alpha v_k, sigma^2) + log_odds_k + net(z, log SNR)_k + constant,

    where the last two are zero for k = 0. Bayes' rule gives each dimension its own evidence, so the
    network only has to say what the others tell about it. With net = 0 this is the exact posterior
    of independent dimensions with p(v_k) / p(v_0) = exp(log_odds_k). alpha^2 = sigmoid(log SNR),
    sigma^2 = 1 - alpha^2; z is (..., D), log SNR (..., 1), ``log_odds`` (L, D), and the network
    has L D outputs, level after level.

    Source: Austin et al., *Structured Denoising Diffusion Models in Discrete State-Spaces*, 2021,
    who also predict the logits of x and apply Bayes' rule to the noise.

    Raises ``ValueError`` for log odds of another shape, or none.

    >>> denoiser = Levels(nn.Linear(3 + 1, 3), torch.zeros(1, 3))
    >>> denoiser(torch.zeros(5, 3), torch.zeros(5, 1)).variance.shape
    torch.Size([5, 3])
    """

    layout = "logits"
    values: Tensor
    log_odds: Tensor

    def __init__(self, net: nn.Module, log_odds: Tensor) -> None:
        super().__init__(net)
        if log_odds.ndim != 2 or log_odds.numel() < 1:
            raise ValueError(f"expected log_odds (levels, D), got {tuple(log_odds.shape)}")
        self.num_outputs = log_odds.numel()
        self.register_buffer("values", torch.linspace(-1, 1, len(log_odds) + 1))
        self.register_buffer("log_odds", log_odds)

    def forward(self, *parents: Tensor) -> dist.Distribution:
        z, log_snr = parents
        learned = self.parameter(z, log_snr).unflatten(-1, self.log_odds.shape)
        odds = F.pad(self.log_odds + learned, (0, 0, 1, 0))
        p = (evidence(z, log_snr, self.values) + odds).softmax(-2)
        values = self.values.unsqueeze(-1)
        mean = (p * values).sum(-2)
        variance = (p * (values - mean.unsqueeze(-2)).square()).sum(-2)
        return NormalDistribution(mean, variance.clamp(min=1e-12).sqrt()).to_event(1)


def evidence(z: Tensor, log_snr: Tensor, values: Tensor) -> Tensor:
    """log N(z; alpha v, sigma^2) for every v of ``values`` (K,), without a constant: (..., K, D).

    z is (..., D), log SNR (..., 1) or ().
    """
    means = log_snr.sigmoid().sqrt().unsqueeze(-1) * values.unsqueeze(-1)
    squares = z.unsqueeze(-2) * means - 0.5 * means.square()
    return squares / (-log_snr).sigmoid().unsqueeze(-1)


def log_odds(x: Tensor, levels: int) -> Tensor:
    """log p(x_d = k) / p(x_d = 0), (levels, D), from data (N, D) of integers 0, ..., ``levels``.

    Frequencies are (count + 1) / (N + levels + 1), Laplace's rule.

    >>> log_odds(torch.tensor([[0.0], [1], [1]]), 1).exp()
    tensor([[1.5000]])
    """
    at_least_one(levels=levels)
    counts = torch.stack([(x == k).sum(0) for k in range(levels + 1)]).to(x.dtype) + 1
    return (counts[1:] / counts[:1]).log()
