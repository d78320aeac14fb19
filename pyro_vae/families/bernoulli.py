"""Binary values, and reals in [0, 1]: Bernoulli and continuous Bernoulli."""

from collections.abc import Callable
from typing import Any, ClassVar, cast

import pyro.distributions as dist
import torch
import torch.nn.functional as F
from pyro.distributions import constraints
from torch import Tensor

from ..nets.function import Function, at_once, differentiated
from ..nets.log_sigmoid import FEW, MOST, by_torch, decay, log_sigmoid
from ..nets.timed import Way, chosen, power_of_two
from .conditional import BINARY, Conditional
from .elementwise import Elementwise, unexpanded
from .events import Events, by_parts, sum_with_logs

GROUP = 120
"""The most factors, of at most 2 each, that are multiplied: float32 has numbers up to 2^128."""


class Bernoulli(Conditional):
    """Bernoulli(sigmoid(logits)), with logits = net(h), on binary values x (..., D)."""

    layout = "logits"
    pixels = BINARY

    def forward(self, *parents: Tensor) -> dist.Distribution:
        return Pixels(BernoulliDistribution(logits=self.parameter(*parents)), self.event_dim)


class Pixels(Events):
    """A batch of vectors of Bernoulli pixels, whose density needs few logarithms.

    Where no gradients are recorded, the pixels of some rows at a time stay in the cache until
    they are summed. A compiler, which traces tensors without values, does so itself. With gradients
    torch's cross-entropy may be faster: both are timed once (:mod:`pyro_vae.nets.timed`).

    >>> d = Pixels(BernoulliDistribution(logits=torch.zeros(2, 784)), 1)
    >>> d.log_prob(torch.ones(2, 784)).shape
    torch.Size([2])
    """

    def log_prob(self, value: Tensor) -> Tensor:
        logits = self.base_dist.logits
        if not self.grouped(value, logits, value):
            return super().log_prob(value)
        if not differentiated(logits):
            return by_parts(_log_prob_of_vectors, logits, value)
        return (_by_cross_entropy if _by_torch(logits) else _by_groups)(logits, value)


class ContinuousBernoulli(Conditional):
    """p(x) proportional to exp(x logits) for x in [0, 1], (..., D), with logits = net(h).

    Source: Loaiza-Ganem & Cunningham, *The continuous Bernoulli*, 2019.
    """

    layout = "logits"
    pixels = frozenset({"grey"})

    def forward(self, *parents: Tensor) -> dist.Distribution:
        return Events(ContinuousBernoulliDistribution(self.parameter(*parents)), self.event_dim)


class BernoulliDistribution(dist.Bernoulli):
    """Bernoulli(sigmoid(logits)), with a density computed from the logits alone.

    log p(x) = x logits - softplus(logits), the negative cross-entropy

    >>> d = BernoulliDistribution(logits=torch.tensor(1000.0))
    >>> d.log_prob(torch.tensor([0.0, 1.0])).neg().tolist()
    [1000.0, 0.0]
    """

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        value = value.to(self.logits.dtype)
        logits, values = torch.broadcast_tensors(self.logits, value)
        if not differentiated(logits):
            return _log_prob(logits, value)
        if by_torch(logits):
            return -F.binary_cross_entropy_with_logits(logits, values, reduction="none")
        return cast(Tensor, LogProb.call(logits, values))


def _log_prob(logits: Tensor, value: Tensor) -> Tensor:
    """log p(x) = log sigmoid(logits) + (x - 1) logits, without gradients."""
    return torch.addcmul(log_sigmoid(logits), unexpanded(value) - 1, logits)


def _log_prob_of_vectors(logits: Tensor, value: Tensor) -> Tensor:
    """log p(x) of vectors, (..., D), with one logarithm for a group of pixels.

    sum_i log p(x_i) = sum_i (x_i l_i - max(l_i, 0)) - log prod_i (1 + exp(-|l_i|))
    """
    terms: Tensor = torch.addcmul(logits.relu(), value, logits, value=-1)
    return sum_with_logs(terms, decay(logits).add_(1), GROUP).neg_()


def _by_groups(logits: Tensor, value: Tensor) -> Tensor:
    """log p(x) of vectors with gradients, by the operations above."""
    return cast(Tensor, LogProbOfVectors.call(logits, value))


def _by_cross_entropy(logits: Tensor, value: Tensor) -> Tensor:
    """The same by torch, in fewer operations and with a logarithm for each pixel."""
    return -F.binary_cross_entropy_with_logits(logits, value, reduction="none").sum(-1)


def _by_torch(logits: Tensor) -> bool:
    """Whether cross-entropy is the faster way for about as many vectors on the CPU."""
    if torch.compiler.is_compiling():
        return True
    if not (logits.is_cpu and at_once(logits)):
        return False
    if logits.numel() < FEW:
        return True
    size = logits.shape[-1]
    rows = power_of_two(min(logits.numel(), MOST) // size)
    threads = torch.get_num_threads()
    name = f"log-density of {rows} vectors of {size} binary pixels, {threads} threads"
    return chosen(name, lambda: _ways(rows, size)) != "grouped"


def _ways(rows: int, size: int) -> dict[Way, Callable[[], object]]:
    """The log-density of vectors and its gradient."""
    pixels = torch.linspace(-4, 4, rows * size, dtype=torch.float32, device="cpu")
    logits = pixels.view(rows, size).requires_grad_()
    value, grad = torch.ones(rows, size, device="cpu"), torch.ones(rows, device="cpu")

    def step(log_prob: Callable[[Tensor, Tensor], Tensor]) -> object:
        with torch.enable_grad():
            output = log_prob(logits, value)
        return torch.autograd.grad(output, [logits], grad)

    return {"torch": lambda: step(_by_cross_entropy), "grouped": lambda: step(_by_groups)}


class LogProb(Function):
    """log p(x), with the gradient x - sigmoid(logits)."""

    generate_vmap_rule = True

    @staticmethod
    def forward(logits: Tensor, value: Tensor) -> Tensor:
        return _log_prob(logits, value)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        logits, value = ctx.saved_tensors
        (grad,) = grads
        to_value = grad * logits if ctx.needs_input_grad[1] else None
        return grad * (value - logits.sigmoid()), to_value

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        logits, value = ctx.saved_tensors
        of_logits, of_value = (0.0 if tangent is None else tangent for tangent in tangents)
        return cast(Tensor, of_logits * (value - logits.sigmoid()) + of_value * logits)


class LogProbOfVectors(LogProb):
    """log p(x) of vectors (..., D), with the same gradient."""

    @staticmethod
    def forward(logits: Tensor, value: Tensor) -> Tensor:
        return _log_prob_of_vectors(logits, value)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return LogProb.backward(ctx, grads[0].unsqueeze(-1))

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        return LogProb.jvp(ctx, *tangents).sum(-1)


class ContinuousBernoulliDistribution(Elementwise):
    """The continuous Bernoulli on [0, 1], for logits of any size.

    log p(x) = x logits - log((exp(logits) - 1) / logits)

    In float32 torch's own distribution is wrong where |logits| > 16.

    Source: Loaiza-Ganem & Cunningham, *The continuous Bernoulli*, 2019.

    >>> ContinuousBernoulliDistribution(torch.tensor(0.0)).log_prob(torch.tensor(0.3))
    tensor(0.)
    """

    arg_constraints: ClassVar = {"logits": constraints.real}
    support = constraints.unit_interval
    logits: Tensor

    def __init__(self, logits: Tensor, validate_args: bool | None = None) -> None:
        super().__init__(validate_args, logits=logits)

    def _near_zero(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return where |logits| < 0.1, the logits for the power series, and for the formulas.

        The power series is used near zero, where the formulas are 0 / 0. In each of the two
        results the entries that are not used are replaced by a safe value.
        """
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
            # the inverse of F(x) = (1 - exp(-s x)) / (1 - exp(-s)), s = |logits|: its density
            # falls with x, so x becomes 1 - x for positive logits
            s = self.logits.abs().clamp(min=1e-30)
            x = -torch.log1p(self._uniform(sample_shape, s) * torch.expm1(-s)) / s
            return torch.where(self.logits < 0, x, 1 - x)

    @property
    def mean(self) -> Tensor:
        near, t, u = self._near_zero()
        tt = t * t
        series = 0.5 + t * (1 / 12 - tt * (1 / 720 - tt / 30240))
        return torch.where(near, series, -1 / torch.expm1(-u) - 1 / u)
