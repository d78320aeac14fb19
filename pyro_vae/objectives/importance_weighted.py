"""Importance-weighted objectives: K draws per datum, one importance weight for each.

w_kb = p(x_b, z_kb) / q(z_kb | x_b),  z_kb ~ q(z | x_b):
log p(x_b) >= E[log 1/K sum_k w_kb] >= ELBO.

The weights combine all terms of a datum in one logarithm, so there is no KL to multiply by a beta.
A ``poutine.scale`` that all sites share (a subsampled plate) multiplies the logarithm. Different
scales are refused.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..programs.checks import at_least
from ..programs.draw import Draw
from ..programs.pair import Pair
from ..programs.scoring import log_sum, negligible
from ..programs.structure import Structure
from .objective import Estimate, Objective


@dataclass(frozen=True)
class ImportanceWeighted(Objective):
    """The argument that these objectives share: the number of draws K."""

    num_particles: int = 5

    def __post_init__(self) -> None:
        at_least(1, num_particles=self.num_particles)


class IWAE(ImportanceWeighted):
    """The importance-weighted bound of K = ``num_particles`` draws.

    loss = -sum_b log 1/K sum_k w_kb

    The bound approaches log p(x) as K grows. Latents without a reparameterised sampler get the
    score-function gradient; the other draws of the datum are its baseline (:func:`bound_of`).

    Source: Burda, Grosse & Salakhutdinov, *Importance Weighted Autoencoders*, 2015.

    Raises ``ValueError`` for K < 1, sites of different scales, or sites without a weight for each
    datum.

    >>> IWAE(50).estimate(vae.model, vae.guide, torch.ones(3, 64)).loss.shape
    torch.Size([])
    """

    def score(self, pair: Pair, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Estimate:
        """Return the estimate of a pair on a call."""
        draw = pair.draw(args, kwargs, self.num_particles)
        check_trained(draw)
        return Estimate.of(draw, -draw.scale * bound_of(draw).sum())


def bound(log_weight: Tensor) -> Tensor:
    """log 1/K sum_k w_k of each datum, (B,), from log weights (K, B)."""
    return log_sum(log_weight) - math.log(len(log_weight))


def normalised(log_weight: Tensor) -> Tensor:
    """w_kb / sum_j w_jb, (K, B), without gradients; zero where the weight is negligible."""
    log_weight = log_weight.detach()
    return log_weight.softmax(0).masked_fill(negligible(log_weight), 0.0)


def bound_of(draw: Draw, power: float = 1.0) -> Tensor:
    """L = 1/power log 1/K sum_k w_k^power of each datum, (B,).

    For draws without a reparameterised sampler the gradient gains
    sum_k (L - L_(-k)) dlog q(z_k | x), where L_(-k) is made of the other weights. Source: Mnih &
    Rezende, *Variational Inference for Monte Carlo Objectives*, 2016.
    """
    log_weight = power * draw.log_weight
    value = bound(log_weight) / power
    if draw.log_scored is None:
        return value
    signal = value.detach() - bound_of_others(log_weight.detach()) / power
    score = draw.log_scored.local
    return value + (signal * (score - score.detach())).sum(0)


def bound_of_others(log_weight: Tensor) -> Tensor:
    """log 1/(K-1) sum_(j != k) w_j for each draw, (K, B); zero for K = 1, without others."""
    K = len(log_weight)
    if K == 1:
        return torch.zeros_like(log_weight)
    nothing = torch.full_like(log_weight[:1], -torch.inf)
    before = torch.cat([nothing, log_weight.logcumsumexp(0)[:-1]])
    after = torch.cat([nothing, log_weight.flip(0).logcumsumexp(0)[:-1]]).flip(0)
    return torch.logaddexp(before, after) - math.log(K - 1)


def with_gradient(value: Tensor, of: Tensor) -> Tensor:
    """The scalar ``value``, with the gradient of the scalar ``of``."""
    return value.detach() + of - of.detach()


def check_trained(draw: Draw) -> None:
    """Raise ``ValueError`` where q(y | x) needs a gradient, and y is summed out of the weights.

    The sum over y does not depend on q(y | x), so that this bound does not train it.
    """
    log_summed = draw.log_summed
    if log_summed is not None and torch.is_grad_enabled() and log_summed.requires_grad:
        raise ValueError(
            f"expected no site of the guide to be summed out, got "
            f"{sorted(draw.structure.guide_values)}, whose distribution gets no gradient from this "
            "bound: use Trace_ELBO"
        )


def check_drawn(draw: Draw) -> None:
    """Raise ``ValueError`` where the draws have no density, or the guide has a factor."""
    if draw.structure.undrawn is not None:
        raise ValueError(f"{draw.structure.undrawn}; use Trace_ELBO")
    draw.check_no_factor()


def check_unsummed(found: Structure) -> None:
    """Raise ``ValueError`` where a site of the guide is to be summed out."""
    if found.guide_values:
        raise ValueError(
            f"expected no site of the guide to be summed out, got {sorted(found.guide_values)}: "
            "use Trace_ELBO"
        )


def check_moving(found: Structure, otherwise: str) -> None:
    """Raise ``TypeError`` where the guide draws a site, not summed out, without a gradient."""
    for name, family in found.unmoved.items():
        if name not in found.guide_values:
            raise TypeError(
                f"expected reparameterised latents, got {family} at site {name!r}: use {otherwise}"
            )
