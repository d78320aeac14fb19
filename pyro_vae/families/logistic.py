"""8-bit pixels: the discretised logistic family."""

from typing import Any, ClassVar

import pyro.distributions as dist
import torch
import torch.nn.functional as F
from pyro.distributions import constraints
from torch import Tensor

from .conditional import Conditional
from .elementwise import Elementwise


class DiscretizedLogistic(Conditional):
    """A logistic density binned into 0, ..., 255, with (loc, log scale) = net(h), where the 256 values span [0, 1]."""

    pixels = frozenset({"8bit"})

    @staticmethod
    def outputs(dim: int) -> int:
        return 2 * dim

    def forward(self, h: Tensor) -> dist.Distribution:
        return DiscretizedLogisticDistribution(*self.parameter_pair(h)).to_event(self.event_dim)


class DiscretizedLogisticDistribution(Elementwise):
    """The logistic density with mean ``loc`` and scale exp(``log_scale``), in [0, 1] units, binned into x = 0, ..., 255.

    p(x) = S((x + 1/2) / 255) - S((x - 1/2) / 255),    S(t) = sigmoid((t - loc) / scale),

    with the outer bins open to infinity, so that the 256 probabilities sum to one. Log scales beyond -20 and 60, a millionth
    of a bin and a flat density, count as these, lest the density be NaN in float32; gradients pass.

    Source: Kingma et al., *Improving Variational Inference with Inverse Autoregressive Flow*, 2016; Salimans et al.,
    *PixelCNN++*, 2017.

    >>> d = DiscretizedLogistic(torch.tensor(0.5), torch.tensor(-2.0))
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
        # sigmoid(a) - sigmoid(b) = sigmoid(a) sigmoid(-b) (1 - exp(b - a)), without a difference of near-equal numbers:
        # the width a - b of a bin depends neither on x nor on loc
        value, precision = value.to(self.loc.dtype), (-self._log_scale()).exp()
        above = F.logsigmoid(((value + 0.5) / 255 - self.loc) * precision)
        below = F.logsigmoid((self.loc - (value - 0.5) / 255) * precision)
        inner = above + below + torch.log(-torch.expm1(-precision / 255))
        return torch.where(value == 0, above, torch.where(value == 255, below, inner))

    def sample(self, sample_shape: Any = ()) -> Tensor:
        with torch.no_grad():
            noise = self._uniform(sample_shape, self.loc).logit()
            return (255 * (self.loc + self._log_scale().exp() * noise)).round().clamp(0, 255)

    @property
    def mean(self) -> Tensor:
        # E[x] = sum_k P(x >= k); one k at a time, for memory
        precision = (-self._log_scale()).exp()
        return sum(
            (torch.sigmoid((self.loc - (k - 0.5) / 255) * precision) for k in range(1, 256)),
            torch.zeros_like(self.loc),
        )

    def _log_scale(self) -> Tensor:
        return self.log_scale + (self.log_scale.clamp(-20, 60) - self.log_scale).detach()
