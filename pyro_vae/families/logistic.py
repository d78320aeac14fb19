"""8-bit pixels: the discretised logistic family."""

import math
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor

from ..nets.function import differentiated
from ..nets.log_sigmoid import decay, log_sigmoid
from .conditional import Conditional
from .elementwise import Elementwise, unexpanded
from .events import Events, by_parts, sum_with_logs

NARROW = 0.25
"""Bins of a smaller width, in scales, need a series for 1 - exp(-width)."""

GROUP = 56
"""The most factors, from 0.22 to 4, that are multiplied: float32 has 2^-126 to 2^128."""


class DiscretizedLogistic(Conditional):
    """A logistic density binned into x = 0, ..., 255, with (loc, log scale) = net(h).

    x is (..., D). loc and scale are in units of x / 255, where the 256 values span [0, 1].
    """

    layout = "loc, log scale"
    pixels = frozenset({"8bit"})

    @staticmethod
    def outputs(dim: int) -> int:
        return 2 * dim

    def forward(self, *parents: Tensor) -> dist.Distribution:
        loc, log_scale = self.parameter_pair(*parents)
        return LogisticPixels(DiscretizedLogisticDistribution(loc, log_scale), self.event_dim)


class LogisticPixels(Events):
    """A batch of vectors of discretised logistic pixels, whose density needs few logarithms.

    >>> parameters = torch.zeros(2, 784), torch.zeros(2, 784)
    >>> d = LogisticPixels(DiscretizedLogisticDistribution(*parameters), 1)
    >>> d.log_prob(torch.ones(2, 784)).shape
    torch.Size([2])
    """

    def log_prob(self, value: Tensor) -> Tensor:
        parameters = self.base_dist.loc, self.base_dist.log_scale
        if not (self.grouped(value, *parameters) and self.base_dist.in_place(value)):
            return super().log_prob(value)
        return by_parts(_log_prob_of_vectors, *parameters, value)


class DiscretizedLogisticDistribution(Elementwise):
    """The logistic density, scale = exp(``log_scale``), binned into x = 0, ..., 255.

    p(x) = S((x + 1/2) / 255) - S((x - 1/2) / 255),    S(t) = sigmoid((t - loc) / scale),

    The two outer bins extend to infinity, so the 256 probabilities sum to one. Log scales are
    clamped to [-20, 60], from a millionth of a bin to a flat density, because outside this range
    the density would be NaN in float32. The gradient ignores the clamp.

    Source: Kingma et al., *Improving Variational Inference with Inverse Autoregressive Flow*, 2016;
    Salimans et al., *PixelCNN++*, 2017.

    >>> d = DiscretizedLogisticDistribution(torch.tensor(0.5), torch.tensor(-2.0))
    >>> torch.testing.assert_close(d.log_prob(torch.arange(256)).exp().sum(), torch.tensor(1.0))
    """

    arg_constraints: ClassVar = {"loc": constraints.real, "log_scale": constraints.real}
    support = constraints.integer_interval(0, 255)
    loc: Tensor
    log_scale: Tensor

    def __init__(self, loc: Tensor, log_scale: Tensor, validate_args: bool | None = None) -> None:
        super().__init__(validate_args, loc=loc, log_scale=log_scale)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        # sigmoid(a) - sigmoid(b) = sigmoid(a) sigmoid(-b) (1 - exp(b - a)): this form does not
        # subtract nearly equal numbers, as the width a - b of a bin depends on neither x nor loc
        if self.in_place(value):
            terms, factors = _terms_and_factors(self.loc, self.log_scale, value)
            return terms.add_(factors.log_())
        value = value.to(self.loc.dtype)
        precision = (-self._log_scale()).exp()
        above = log_sigmoid(((value + 0.5) / 255 - self.loc) * precision)
        below = log_sigmoid((self.loc - (value - 0.5) / 255) * precision)
        inner = above + below + _log1mexp(precision / 255)
        return torch.where(value == 0, above, torch.where(value == 255, below, inner))

    def in_place(self, value: Tensor) -> bool:
        """Whether no derivatives are asked for, in float32, and the parameters give the shape."""
        parameters = self.loc, self.log_scale
        if any(x.dtype != torch.float32 or differentiated(x) for x in parameters):
            return False
        return bool(torch.broadcast_shapes(self.loc.shape, value.shape) == self.loc.shape)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        with torch.no_grad():
            noise = self._uniform(sample_shape, self.loc).logit()
            return (255 * (self.loc + self._log_scale().exp() * noise)).round().clamp(0, 255)

    @property
    def mean(self) -> Tensor:
        # E[x] = sum_k P(x >= k), one k at a time to save memory
        precision = (-self._log_scale()).exp()
        return sum(
            (torch.sigmoid((self.loc - (k - 0.5) / 255) * precision) for k in range(1, 256)),
            torch.zeros_like(self.loc),
        )

    def _log_scale(self) -> Tensor:
        return self.log_scale + (self.log_scale.clamp(-20, 60) - self.log_scale).detach()


def _log1mexp(x: Tensor) -> Tensor:
    """log(1 - exp(-x)) = log(2 t / (1 + t)) with t = tanh(x / 2), for x > 0.

    Torch's ``expm1`` takes four times as long as ``tanh`` (torch 2.14 on an AMD EPYC).
    """
    t = (x / 2).tanh()
    return (2 * t / (1 + t)).log()


def _log_prob_of_vectors(loc: Tensor, log_scale: Tensor, value: Tensor) -> Tensor:
    """log p(x) of vectors, (..., D), with one logarithm for a group of pixels."""
    return sum_with_logs(*_terms_and_factors(loc, log_scale, value), GROUP)


def _terms_and_factors(loc: Tensor, log_scale: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """log p(x) = term + log factor in float32, with a factor from 0.22 to 4.

    p(x) = sigmoid(a) sigmoid(-b) (1 - exp(-w)) for a bin from b to a, of the width w, in scales.

    sigmoid(a) = exp(min(a, 0)) / (1 + exp(-|a|)), and 1 - exp(-w) = min(w, 1/4) f with f in
    [0.88, 4]. The outer bins are infinitely wide. Most operations are in place: allocation costs
    more than arithmetic. So ``precision`` becomes the width, and ``log_scale`` its logarithm.
    """
    log_scale = log_scale.clamp(-20, 60)
    precision = (-log_scale).exp_()
    value = unexpanded(value).to(loc.dtype)
    outer = (value == 0) | (value == 255)
    above = torch.where(value == 255, torch.inf, (value + 0.5) / 255).sub(loc).mul_(precision)
    below = (loc - torch.where(value == 0, -torch.inf, (value - 0.5) / 255)).mul_(precision)
    width = precision.div_(255).masked_fill_(outer, torch.inf)
    log_width = log_scale.add_(math.log(255)).neg_().masked_fill_(outer, torch.inf)
    terms = log_width.clamp_(max=math.log(NARROW)).add_(above.clamp(max=0))
    terms.add_(below.clamp(max=0))
    wide = decay(width).neg_().add_(1).mul_(1 / NARROW)
    factors = torch.where(width < NARROW, _mean_decay(width.clamp(max=NARROW)), wide)
    return terms, factors.div_(decay(above).add_(1)).div_(decay(below).add_(1))


def _mean_decay(w: Tensor) -> Tensor:
    """(1 - exp(-w)) / w for 0 <= w <= 1/4 by its power series, exact to rounding.

    The first term that is left out is (1/4)^6 / 7! = 5e-8.
    """
    series = w * (-1 / 720)
    for k in range(5, 1, -1):
        series = series.add_((-1) ** (k - 1) / math.factorial(k)).mul_(w)
    return series.add_(1)
