"""log sigmoid on the CPU, by torch or by a series.

log sigmoid(x) = min(x, 0) - log(1 + exp(-|x|))

Torch's ``log1p`` can take most of the time of a binary likelihood (torch 2.14 on an AMD EPYC of the
generation Zen 5: 10 ns for a number on one thread, ``exp`` 0.6 ns, ``exp2`` 0.14 ns). Its argument
is here in [0, 1], where a short series is exact to rounding. Where ``log1p`` is fast (1.5 ns on
Zen 3), torch's one function takes less time than the operations of the series. So both are timed.
A compiled graph, which makes one loop of all operations, always takes the series.
"""

import math
from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from .function import Function, at_once, differentiated
from .timed import Way, chosen, power_of_two

aten: Any = torch.ops.aten

FEW = 1 << 12
"""Fewer numbers are not timed: there the number of operations decides."""

MOST = 1 << 19
"""More numbers are timed as if they were this many."""

TERMS = 8
"""Of the series; the first that is left out is below 2 (1/3)^17 / 17 = 1e-9."""


def decay(x: Tensor) -> Tensor:
    """exp(-|x|)."""
    return x.abs().mul_(-1 / math.log(2)).exp2_()


def log1p(e: Tensor) -> Tensor:
    """log(1 + e) for 0 <= e <= 1 in float32: 2 atanh(s) with s = e / (2 + e) <= 1/3.

    2 atanh(s) = 2 s (1 + s^2 / 3 + s^4 / 5 + ...)
    """
    s = e / (e + 2)
    square = s * s
    series = square * (2 / (2 * TERMS - 1))
    for k in range(TERMS - 2, 0, -1):
        series = series.add_(2 / (2 * k + 1)).mul_(square)
    return series.add_(2).mul_(s)


def applies(x: Tensor) -> bool:
    """Whether the series serves for this tensor."""
    return x.device.type == "cpu" and x.dtype == torch.float32


def by_torch(x: Tensor) -> bool:
    """Whether torch's own function is the faster way for about as many numbers.

    ``torch.compile`` takes no function with a rule for forward mode, and gets torch's.
    """
    if torch.compiler.is_compiling() or not applies(x):
        return True
    if not at_once(x):
        return False
    numbers = power_of_two(min(x.numel(), MOST))
    if numbers < FEW:
        return True
    name = f"log sigmoid of {numbers} numbers, {torch.get_num_threads()} threads"
    return chosen(name, lambda: _ways(numbers)) != "series"


def _ways(numbers: int) -> dict[Way, Callable[[], Tensor]]:
    x = torch.linspace(-4, 4, numbers, dtype=torch.float32, device="cpu")
    return {"torch": lambda: F.logsigmoid(x), "series": lambda: _by_series(x)}


def _by_series(x: Tensor) -> Tensor:
    return x.clamp(max=0).sub_(log1p(decay(x)))


class LogSigmoid(Function):
    """log sigmoid(x), with the gradient sigmoid(-x).

    The derivatives of |x| and min(x, 0) at 0, taken one by one, do not add up to that of the sum.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return _by_series(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return grads[0] * torch.sigmoid(-x)

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return tangents[0] * torch.sigmoid(-x)


def log_sigmoid(x: Tensor) -> Tensor:
    """log sigmoid(x) for a tensor of any shape.

    >>> log_sigmoid(torch.tensor([-1000.0, 0.0, 1000.0])).tolist()
    [-1000.0, -0.6931471824645996, 0.0]
    """
    if by_torch(x):
        return F.logsigmoid(x)
    return cast(Tensor, LogSigmoid.call(x)) if differentiated(x) else _by_series(x)


def _softplus(x: Tensor, beta: float = 1, threshold: float = 20) -> Any:
    # above a threshold of 20 softplus(x) is x to rounding, below it torch would change the value
    return -_by_series(-x) if beta == 1 and threshold >= 20 and applies(x) else NotImplemented


def _log_sigmoid_forward(x: Tensor) -> Any:
    return (_by_series(x), x.new_empty(0)) if applies(x) else NotImplemented


def _cross_entropy(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    pos_weight: Tensor | None = None,
    reduction: int = 1,
) -> Any:
    """Torch's ``binary_cross_entropy_with_logits`` without weights, means (1) and sums (2)."""
    if reduction or weight is not None or pos_weight is not None or not applies(logits):
        return NotImplemented
    return (1 - target) * logits - _by_series(logits)


DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    aten.softplus.default: _softplus,
    aten.log_sigmoid_forward.default: _log_sigmoid_forward,
    aten.binary_cross_entropy_with_logits.default: _cross_entropy,
}
"""The replacements in a compiled graph, where programs use torch's own functions."""
