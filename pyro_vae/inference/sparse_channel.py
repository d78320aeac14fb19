"""Sparse linear channels y = A h + n without networks: exact posterior, EM, mean field.

h_l = s_l g_l,  s_l ~ Bernoulli(rate),  g_l ~ N(0, tap_scale^2),  n ~ N(0, noise_scale^2 I).

This Bernoulli-Gaussian prior on the L taps h makes the posterior a mixture of 2^L Normals, one for
each support s.

Source: Titsias & Lázaro-Gredilla, *Spike and Slab Variational Inference for Multi-Task and Multiple
Kernel Learning*, 2011; Dempster, Laird & Rubin, *Maximum Likelihood from Incomplete Data via the
EM Algorithm*, 1977.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

MAX_TAPS = 10
"""The largest number of taps L whose 2^L supports are enumerated."""


class ChannelPrior(NamedTuple):
    """The hyper-parameters of a sparse channel."""

    rate: float
    """P(s_l = 1)."""
    tap_scale: float
    noise_scale: float


class ChannelPosterior(NamedTuple):
    """Moments of the posterior of the taps h of each datum, or of its mean field."""

    log_evidence: Tensor
    """log p(y), (B,); for the mean field, the ELBO."""
    active: Tensor
    """P(s_l = 1 | y), (B, L)."""
    mean: Tensor
    """E[h | y], (B, L)."""
    power: Tensor
    """E[h_l^2 | y], (B, L)."""
    residual: Tensor
    """E[|y - A h|^2 | y], (B,)."""
    supports: Tensor | None = None
    """p(s | y), (B, 2^L), in the order of :func:`all_supports`; None for the mean field."""


def all_supports(taps: int) -> Tensor:
    """Return the 2^L binary vectors of length L = ``taps``, (2^L, L).

    Raises ``ValueError`` for fewer than 1 tap or more than 10.

    >>> all_supports(2)
    tensor([[0., 0.],
            [0., 1.],
            [1., 0.],
            [1., 1.]])
    """
    if not 1 <= taps <= MAX_TAPS:
        raise ValueError(f"expected 1 to {MAX_TAPS} taps to enumerate supports of, got {taps}")
    return torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * taps).view(-1, taps)


def exact_posterior(A: Tensor, y: Tensor, prior: ChannelPrior) -> ChannelPosterior:
    """Return the posterior p(s, h | y) for y (B, M) and A (M, L), by a sum over all 2^L supports.

    Given s, with D = diag(s) and precision C = D A' A D / noise^2 + I / tap^2,
    log p(y | s) = log N(y; 0, noise^2 I) + 1/2 b' C^-1 b - 1/2 log det(tap^2 C), where
    b = D A' y / noise^2.

    Raises ``ValueError`` for more than 10 taps, or shapes or hyper-parameters that do not fit.

    >>> y, prior = torch.tensor([[3.0, 0.0]]), ChannelPrior(0.5, 1.0, 0.1)
    >>> posterior = exact_posterior(torch.eye(2), y, prior)
    >>> posterior.active.round(decimals=2)
    tensor([[1.0000, 0.0900]])
    """
    _check(A, y, prior)
    rate, tap, noise = prior
    s = all_supports(A.shape[1]).to(A)
    masked = A * s.unsqueeze(1)  # (S, M, L)
    eye = torch.eye(A.shape[1]).to(A)
    factor = torch.linalg.cholesky(masked.mT @ masked / noise**2 + eye / tap**2)
    b = torch.einsum("sml,bm->sbl", masked, y) / noise**2
    mean = torch.cholesky_solve(b.mT, factor).mT  # (S, B, L)
    covariance = torch.cholesky_inverse(factor)
    log_det = 2 * factor.diagonal(dim1=-2, dim2=-1).log().sum(-1) + 2 * len(eye) * math.log(tap)
    log_prior = s.sum(-1) * math.log(rate) + (1 - s).sum(-1) * math.log1p(-rate)
    log_joint = _log_noise(y, y.square().sum(-1), noise) + (
        0.5 * (b * mean).sum(-1) + (log_prior - 0.5 * log_det).unsqueeze(-1)
    )
    p = log_joint.softmax(0)  # (S, B)
    residual = (y - torch.einsum("sml,sbl->sbm", masked, mean)).square().sum(-1)
    spread = torch.einsum("sml,slk,smk->s", masked, covariance, masked)
    squares = mean.square() + covariance.diagonal(dim1=-2, dim2=-1).unsqueeze(1)
    return ChannelPosterior(
        log_joint.logsumexp(0),
        p.T @ s,
        torch.einsum("sb,sl,sbl->bl", p, s, mean),
        torch.einsum("sb,sl,sbl->bl", p, s, squares),
        (p * (residual + spread.unsqueeze(-1))).sum(0),
        p.T,
    )


def mean_field(
    A: Tensor,
    y: Tensor,
    prior: ChannelPrior,
    sweeps: int = 50,
    start: ChannelPosterior | None = None,
) -> ChannelPosterior:
    """Return the mean field q(s, g) = prod_l q(s_l, g_l), updating one factor at a time.

    q(g_l | s_l = 1) = N(m_l, v_l), with v_l = 1 / (|a_l|^2 / noise^2 + 1 / tap^2),
    m_l = v_l a_l' (y - sum_{j != l} a_j E[h_j]) / noise^2,
    logit q(s_l = 1) = logit rate + 1/2 log(v_l / tap^2) + m_l^2 / (2 v_l).

    a_l is column l of A (M, L); y is (B, M). No update lowers the ELBO, which is ``log_evidence``
    of the result. The first sweep starts from h = 0, or from E[h] of ``start``. The optimum is a
    local one. There is no limit to the number of taps.

    Raises ``ValueError`` for shapes or hyper-parameters that do not fit.
    """
    _check(A, y, prior)
    rate, tap, noise = prior
    v = 1 / (A.square().sum(0) / noise**2 + tap**-2)  # (L,)
    constant = math.log(rate / (1 - rate)) + 0.5 * (v.log() - 2 * math.log(tap))
    m, active = (y.new_zeros(len(y), A.shape[1]) for _ in range(2))
    h = torch.zeros_like(m) if start is None else start.mean.clone()
    for _ in range(sweeps):
        for tap_number, a in enumerate(A.T):
            others = y - h @ A.T + h[:, tap_number, None] * a
            m[:, tap_number] = v[tap_number] * (others @ a) / noise**2
            evidence = m[:, tap_number].square() / (2 * v[tap_number])
            active[:, tap_number] = torch.sigmoid(constant[tap_number] + evidence)
            h[:, tap_number] = active[:, tap_number] * m[:, tap_number]
    power = active * (m.square() + v)
    residual = (y - h @ A.T).square().sum(-1) + (power - h.square()) @ A.square().sum(0)
    elbo = _log_noise(y, residual, noise) - _kl(active, m, v, prior)
    return ChannelPosterior(elbo, active, h, power, residual)


def em_step(A: Tensor, y: Tensor, posterior: ChannelPosterior) -> ChannelPrior:
    """Return the hyper-parameters that maximise E[log p(y, s, h)] under a posterior.

    A is (M, L), y is (B, M). With the exact posterior this is EM, and log p(y) never decreases;
    with the mean field the ELBO never decreases.
    """
    number = posterior.active.sum()
    return ChannelPrior(
        float(posterior.active.mean()),
        float((posterior.power.sum() / number).sqrt()),
        float((posterior.residual.mean() / A.shape[0]).sqrt()),
    )


def _kl(active: Tensor, m: Tensor, v: Tensor, prior: ChannelPrior) -> Tensor:
    """KL(q(s, g) || p(s, g)) of each datum, (B,)."""
    rate, tap, _ = prior
    of_bits = torch.special.xlogy(active, active / rate)
    of_bits = of_bits + torch.special.xlogy(1 - active, (1 - active) / (1 - rate))
    of_taps = 0.5 * ((m.square() + v) / tap**2 - 1 - v.log() + 2 * math.log(tap))
    kl: Tensor = (of_bits + active * of_taps).sum(-1)
    return kl


def _log_noise(y: Tensor, squares: Tensor, noise: float) -> Tensor:
    """E[log N(y; A h, noise^2 I)], where E|y - A h|^2 = ``squares``."""
    constant: float = y.shape[1] * (math.log(noise) + 0.5 * math.log(2 * math.pi))
    return -0.5 * squares / noise**2 - constant


def _check(A: Tensor, y: Tensor, prior: ChannelPrior) -> None:
    if A.ndim != 2 or y.ndim != 2 or A.shape[0] != y.shape[1]:
        raise ValueError(
            f"expected A (M, L) and y (B, M), got {tuple(A.shape)} and {tuple(y.shape)}"
        )
    if not (0 < prior.rate < 1 and prior.tap_scale > 0 and prior.noise_scale > 0):
        raise ValueError(f"expected a rate in (0, 1) and positive scales, got {tuple(prior)}")
