"""Estimates of log p(x) from K importance weights, and of their errors.

In every function ``log_weight`` is (K, ...), samples first, in nats. Every result is (...), one
number per datum. W_k = w_k / sum_j w_j are the normalised weights, and L = log 1/K sum_k w_k.
"""

import math

import torch
from torch import Tensor


def numbers(log_weight: Tensor) -> Tensor:
    """Return the log weights, after a check for NaN; they may be infinite.

    Raises ``ValueError`` where one is NaN, because no estimate is defined then.
    """
    if bool(log_weight.isnan().any()):
        raise ValueError(
            "expected log weights that are numbers, got NaN: look for parameters or draws that "
            "are not finite"
        )
    return log_weight


def log_mean_exp(log_weight: Tensor) -> Tensor:
    """Return L = log 1/K sum_k w_k, (...): the estimate of log p(x), a lower bound in expectation.

    >>> log_mean_exp(torch.tensor([1.0, 3.0]).log()).exp()
    tensor(2.)
    """
    return log_weight.logsumexp(0) - math.log(len(log_weight))


def effective_sample_size(log_weight: Tensor) -> Tensor:
    """Return ESS = 1 / sum_k W_k^2, (...), between 1 and K.

    It is the equivalent number of exact posterior draws.

    Source: Kong, *A note on importance sampling using standardized weights*, 1992.

    >>> effective_sample_size(torch.zeros(8))
    tensor(8.)
    """
    return log_weight.softmax(0).square().sum(0).reciprocal()


def standard_error(log_weight: Tensor) -> Tensor:
    """The standard error of L, in nats, by the delta method; NaN for K = 1.

    se^2 = Var(w) / (K mean(w)^2) = (K / ESS - 1) / (K - 1)

    It is never above 1, even for a poor guide. Values above about 0.3 underestimate the error.

    >>> standard_error(torch.tensor([1.0, 2.0, 3.0, 4.0]).log())  # sqrt((5/3) / 4) / 2.5
    tensor(0.2582)
    """
    K = len(log_weight)
    if K == 1:
        return torch.full_like(log_weight[0], torch.nan)
    return ((K / effective_sample_size(log_weight) - 1) / (K - 1)).clamp(min=0).sqrt()


def jackknife_bias(log_weight: Tensor) -> Tensor:
    """The jackknife's estimate of the bias E[L] - log p(x) <= 0, in nats; NaN for K = 1.

    bias = (K - 1) (1/K sum_k L_(-k) - L),     L_(-k): the estimate without sample k

    L - bias is the jackknife estimate of first order of log p(x). Its bias is O(1 / K^2).

    Source: Nowozin, *Debiasing Evidence Approximations*, 2018.

    >>> jackknife_bias(torch.zeros(8))
    tensor(0.)
    """
    K = len(log_weight)
    if K == 1:
        return torch.full_like(log_weight[0], torch.nan)
    share = log_weight.softmax(0)
    # log(1 - W_k) is imprecise for W_k close to 1, so it is computed again for the largest W_k
    left = torch.log1p(-share)
    largest = share.argmax(0, keepdim=True)
    others = log_weight.scatter(0, largest, -torch.inf).logsumexp(
        0, keepdim=True
    ) - log_weight.logsumexp(0, keepdim=True)
    left = left.scatter(0, largest, others)
    return (K - 1) * (left.mean(0) - math.log1p(-1 / K))  # L_(-k) - L = log(1 - W_k) - log(1 - 1/K)


def bounds(log_weight: Tensor) -> dict[int, Tensor]:
    """The importance-weighted bounds E[L_k] for k = 1, 2, 4, ... and K itself.

    The result maps k to the bound, (...): the mean over disjoint groups of k samples. The first is
    the ELBO and the last is the estimate of log p(x). In expectation the bounds grow with k. Where
    sites of the guide are summed out, the first is above the ELBO, because the ELBO takes the
    expectation over these sites outside the logarithm.

    Source: Burda, Grosse & Salakhutdinov, *Importance Weighted Autoencoders*, 2015, theorem 1.

    >>> list(bounds(torch.zeros(10, 3)))
    [1, 2, 4, 8, 10]
    """
    K = len(log_weight)
    sizes = [2**i for i in range(K.bit_length()) if 2**i < K]
    return {size: _grouped(log_weight, size).mean(0) for size in [*sizes, K]}


def _grouped(log_weight: Tensor, size: int) -> Tensor:
    """The estimates L of disjoint groups of ``size`` samples, (K // size, ...)."""
    groups = len(log_weight) // size
    return log_mean_exp(log_weight[: groups * size].reshape(size, groups, *log_weight.shape[1:]))
