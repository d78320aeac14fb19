"""Distributions that torch and Pyro lack, or compute too slowly or too coarsely.

Each is of one number, elementwise over its parameters; a conditional declares the event dimensions.
"""

import copy
import math
from typing import Any, ClassVar, Self

import pyro.distributions as dist
import torch
import torch.nn.functional as F
from pyro.distributions import constraints
from torch import Tensor


class Bernoulli(dist.Bernoulli):  # type: ignore[misc]
    """Bernoulli(sigmoid(logits)), its density straight from the logits.

    log p(x) = x logits - softplus(logits), the negative cross-entropy

    >>> Bernoulli(logits=torch.tensor(1000.0)).log_prob(torch.tensor([0.0, 1.0])).tolist()
    [-1000.0, -0.0]
    """

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        logits, value = torch.broadcast_tensors(self.logits, value.to(self.logits.dtype))  # type: ignore[no-untyped-call]
        return F.binary_cross_entropy_with_logits(logits, value, reduction="none").neg()


class Normal(dist.Normal):  # type: ignore[misc]
    """N(loc, scale^2), its density in half as many operations as torch's: for a few latents, their number is the cost.

    log p(x) = -1/2 ((x - loc) / scale)^2 - log scale - 1/2 log 2 pi

    >>> Normal(0.0, 1.0).log_prob(torch.tensor(0.0))
    tensor(-0.9189)
    """

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        eps = (value - self.loc) / self.scale
        return torch.addcmul(self.scale.log().neg().sub(0.5 * math.log(2 * math.pi)), eps, eps, value=-0.5)


class _Elementwise(dist.TorchDistribution):  # type: ignore[misc]
    """A distribution whose batch shape is the shape of its parameters, those named in ``arg_constraints``."""

    def __init__(self, validate_args: bool | None = None, **parameters: Tensor) -> None:
        for name, value in zip(parameters, torch.broadcast_tensors(*parameters.values()), strict=True):  # type: ignore[no-untyped-call]
            setattr(self, name, value)
        super().__init__(value.shape, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Self:
        new = copy.copy(self)
        for name in self.arg_constraints:
            setattr(new, name, getattr(self, name).expand(batch_shape))
        new._batch_shape = torch.Size(batch_shape)
        return new

    def _uniform(self, sample_shape: Any, like: Tensor) -> Tensor:
        return torch.rand(self._extended_shape(sample_shape), dtype=like.dtype, device=like.device)


class Binomial(_Elementwise):
    """Binomial(total_count, sigmoid(logits)) with one ``total_count`` = n for all, many times faster than torch's.

    log p(x) = x logits - n softplus(logits) + log(n! / (x! (n - x)!))

    The last term is computed once for each datum, not once for each particle.

    >>> Binomial(2, torch.tensor(0.0)).log_prob(torch.tensor([0.0, 1.0, 2.0])).exp()
    tensor([0.2500, 0.5000, 0.2500])
    """

    arg_constraints: ClassVar = {"logits": constraints.real}
    logits: Tensor

    def __init__(self, total_count: int, logits: Tensor, validate_args: bool | None = None) -> None:
        self.total_count = total_count
        super().__init__(validate_args, logits=logits)

    @constraints.dependent_property(is_discrete=True, event_dim=0)  # type: ignore[untyped-decorator]
    def support(self) -> Any:
        return constraints.integer_interval(0, self.total_count)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        value, n = value.to(self.logits.dtype), self.total_count
        log_ways = math.lgamma(n + 1) - torch.lgamma(value + 1) - torch.lgamma(n - value + 1)
        # above 40 softplus is the identity, to the last digit of float64; torch's default of 20 loses some
        negative_log_normaliser = F.softplus(self.logits, threshold=40).mul_(-n)
        return torch.addcmul(negative_log_normaliser, value, self.logits) + log_ways

    def sample(self, sample_shape: Any = ()) -> Tensor:
        with torch.no_grad():
            probability = self.logits.sigmoid().expand(self._extended_shape(sample_shape))
            return torch.binomial(torch.full_like(probability, self.total_count), probability)

    @property
    def mean(self) -> Tensor:
        return self.total_count * self.logits.sigmoid()


class ContinuousBernoulli(_Elementwise):
    """The continuous Bernoulli on [0, 1], for logits of any size (torch's is wrong beyond +-16 in float32).

    log p(x) = x logits - log((exp(logits) - 1) / logits)

    Source: Loaiza-Ganem & Cunningham, *The continuous Bernoulli*, 2019.

    >>> ContinuousBernoulli(torch.tensor(0.0)).log_prob(torch.tensor(0.3))
    tensor(0.)
    """

    arg_constraints: ClassVar = {"logits": constraints.real}
    support = constraints.unit_interval
    logits: Tensor

    def __init__(self, logits: Tensor, validate_args: bool | None = None) -> None:
        super().__init__(validate_args, logits=logits)

    def _near_zero(self) -> tuple[Tensor, Tensor, Tensor]:
        """Where |logits| < 0.1, and the logits for the power series there and for the formulas elsewhere (0 / 0 at 0)."""
        near = self.logits.abs() < 0.1
        return near, torch.where(near, self.logits, 0.0), torch.where(near, 1.0, self.logits)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        near, t, u = self._near_zero()
        tt = t * t
        series = t / 2 + tt * (1 / 24 - tt * (1 / 2880 - tt / 181440))
        log_normaliser = u.relu() + torch.log(-torch.expm1(-u.abs()) / u.abs())
        return value * self.logits - torch.where(near, series, log_normaliser)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        with torch.no_grad():
            # the inverse of F(x) = (1 - exp(-s x)) / (1 - exp(-s)), with s = -logits; mirrored for positive logits
            s = self.logits.abs().clamp(min=1e-30)
            x = -torch.log1p(self._uniform(sample_shape, s) * torch.expm1(-s)) / s
            return torch.where(self.logits < 0, x, 1 - x)

    @property
    def mean(self) -> Tensor:
        near, t, u = self._near_zero()
        tt = t * t
        return torch.where(near, 0.5 + t * (1 / 12 - tt * (1 / 720 - tt / 30240)), -1 / torch.expm1(-u) - 1 / u)


class DiscretizedLogistic(_Elementwise):
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
        return sum((torch.sigmoid((self.loc - (k - 0.5) / 255) * precision) for k in range(1, 256)), torch.zeros_like(self.loc))

    def _log_scale(self) -> Tensor:
        return self.log_scale + (self.log_scale.clamp(-20, 60) - self.log_scale).detach()
