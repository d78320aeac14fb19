"""Pareto smoothing: fit the tail of the importance weights, and replace it by fitted quantiles.

The weights beyond a threshold follow a generalised Pareto distribution of shape k, whose moments of
order 1/k and more are infinite. Below k = 0.5 the standard error is reliable. Above k = 0.7 the
estimate itself is not reliable.

Source: Vehtari, Simpson, Gelman, Yao & Gabry, *Pareto Smoothed Importance Sampling*, 2024 (2015).
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

MIN_TAIL = 5
"""The smallest number of tail weights for a fit."""


FLAT = 1e-3
"""Tail weights that differ by less than this, in nats, are not fitted."""


class Smoothed(NamedTuple):
    """Weights with a smoothed tail, and the shape of that tail."""

    log_weight: Tensor
    """The log weights (K, ...), sorted; the largest of each datum are fitted quantiles."""
    pareto_k: Tensor
    """The shape k, (...); 0 where the largest weights agree to 0.1 %, NaN for too few weights."""


def pareto_k(log_weight: Tensor) -> Tensor:
    """Return the tail shape k, (...), of the weights (K, ...) of each datum: see :class:`Smoothed`.

    >>> _ = torch.manual_seed(0)
    >>> uniform = torch.rand(100_000, dtype=torch.float64)
    >>> round(float(pareto_k(-0.9 * uniform.log())), 1)  # w = u^-0.9
    0.9
    """
    return pareto_smoothed(log_weight).pareto_k


def pareto_smoothed(log_weight: Tensor) -> Smoothed:
    """Replace the M = min(K / 5, 3 sqrt(K)) largest weights of each datum by smooth ones.

    ``log_weight`` is (K, ...). The smooth weights are quantiles of the generalised Pareto
    distribution that is fitted to the largest weights. No weight exceeds the largest drawn weight.
    ``log_mean_exp`` of the result is the Pareto-smoothed estimate of log p(x). It has a small bias,
    and less noise where k is between 0.5 and 0.7.
    """
    K = len(log_weight)
    tail = min(K // 5, math.ceil(3 * math.sqrt(K)))
    if tail < MIN_TAIL:
        return Smoothed(log_weight, torch.full_like(log_weight[0], torch.nan))
    # double precision: the weights of a bad guide exceed the range of float32
    ordered = log_weight.double().sort(0).values
    top = ordered[-tail:]
    cutoff = ordered[-tail - 1]
    largest = top[-1]
    threshold = (cutoff - largest).exp()  # in units of the largest weight
    exceedance = (top - largest).exp() - threshold
    flat = largest - cutoff < FLAT
    k, sigma = fit_generalized_pareto(exceedance)
    p = ((torch.arange(tail) + 0.5) / tail).to(exceedance).reshape(-1, *[1] * flat.ndim)
    quantile = threshold + sigma * torch.expm1(-k * torch.log1p(-p)) / k
    smooth = torch.where(flat, top, quantile.clamp(max=1).log() + largest)
    return Smoothed(
        torch.cat([ordered[:-tail], smooth]).to(log_weight),
        torch.where(flat, 0.0, k).to(log_weight),
    )


def fit_generalized_pareto(exceedance: Tensor) -> tuple[Tensor, Tensor]:
    """Fit p(y) = 1/sigma (1 + k y / sigma)^(-1/k - 1) to sorted y >= 0; return k and sigma.

    y has shape (M, ...), k and sigma have shape (...). The estimate is the posterior mean over a
    grid of b = k / sigma under a weak data-based prior. A prior on k with the weight of ten
    observations moves k towards 0.5.

    Source: Zhang & Stephens, *A New and Efficient Estimation Method for the Generalized Pareto
    Distribution*, 2009, with the prior on k of Vehtari et al., appendix G.
    """
    M = len(exceedance)
    grid = 30 + math.isqrt(M)
    step = 1 - (grid / (torch.arange(grid).to(exceedance) + 0.5)).sqrt()
    tiny = 1e6 * torch.finfo(exceedance.dtype).tiny
    quartile = exceedance[int(M / 4 - 0.5)].clamp(min=tiny)  # zero after underflow
    b = step.reshape(-1, *[1] * quartile.ndim) / (3 * quartile) + 1 / exceedance[-1]  # (grid, ...)
    k = torch.stack([torch.log1p(-row * exceedance).mean(0) for row in b])
    log_posterior = M * (torch.log(-b / k) - k - 1)
    b = (b * log_posterior.softmax(0)).sum(0)
    k = torch.log1p(-b * exceedance).mean(0)
    return (M * k + 5) / (M + 10), -k / b
