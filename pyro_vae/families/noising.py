"""Gaussian noise that grows in steps: the fixed guide of a diffusion model."""

import pyro.distributions as dist
import torch
from torch import Tensor, nn


class Noising(nn.Module):
    """q(z_t | v) = N(alpha_t v, sigma_t^2 I) for steps t = 1, ..., T, a Markov chain.

    alpha_t^2 = sigmoid(log_snr_t), sigma_t^2 = 1 - alpha_t^2; ``log_snr`` is (T,) and decreases.
    Steps t are integers of shape (...), for v of shape (..., D).

    Source: Kingma et al., *Variational Diffusion Models*, 2021.

    Raises ``ValueError`` for fewer than two steps, or signal-to-noise ratios that do not decrease.

    >>> noising = Noising(torch.linspace(5, -5, 10))
    >>> noising(torch.zeros(3, 2), torch.tensor([1, 5, 10])).variance[:, 0]
    tensor([0.0067, 0.3646, 0.9933])
    """

    log_snr: Tensor

    def __init__(self, log_snr: Tensor) -> None:
        super().__init__()
        if log_snr.ndim != 1 or len(log_snr) < 2 or not bool((log_snr.diff() < 0).all()):
            raise ValueError(
                "expected log_snr (T,) of at least two steps that falls, "
                f"got shape {tuple(log_snr.shape)} from {log_snr.max():g} to {log_snr.min():g}"
            )
        self.register_buffer("log_snr", log_snr)

    def __len__(self) -> int:
        """Return the number of steps T."""
        return len(self.log_snr)

    def level(self, t: Tensor) -> Tensor:
        """The log signal-to-noise ratio of steps, (..., 1)."""
        return self.log_snr[t - 1].unsqueeze(-1)

    def forward(self, v: Tensor, t: Tensor) -> dist.Distribution:
        """q(z_t | v)."""
        return normal(self.level(t).sigmoid().sqrt() * v, (-self.level(t)).sigmoid())

    def before(
        self, z: Tensor, t: Tensor, mean: Tensor, variance: Tensor | float = 0.0
    ) -> dist.Distribution:
        """The Normal with the mean and variance of q(z_{t-1} | z_t, v), averaged over v.

        ``mean`` and ``variance`` are those of v given z_t; without ``variance`` v is known.
        """
        snr_t, snr_s = self.level(t), self.level(t - 1)
        c = -torch.expm1(snr_t - snr_s)  # 1 - SNR_t / SNR_s
        alpha_s = snr_s.sigmoid().sqrt()
        loc = alpha_s * ((1 - c) / snr_t.sigmoid().sqrt() * z + c * mean)
        return normal(loc, (-snr_s).sigmoid() * c + (alpha_s * c).square() * variance)


def normal(loc: Tensor, variance: Tensor) -> dist.Distribution:
    """The diagonal Normal with mean (..., D) and this variance."""
    return dist.Normal(loc, variance.sqrt()).to_event(1)
