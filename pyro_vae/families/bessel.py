"""Modified Bessel functions of the first kind, with gradients, in any precision."""

import math

import torch
from torch import Tensor


def log_bessel(order: float, x: Tensor) -> Tensor:
    """Return log I_order(x) - x, for x > 0 of any shape and order >= 0.

    It is computed at a higher order by the uniform expansion, then divided by ratios of successive
    orders down to ``order``.
    """
    top, ratios = _ratios(order, x)
    return _olver(top, x) - torch.stack(ratios).log().sum(0)


def bessel_ratio(order: float, x: Tensor) -> Tensor:
    """Return I_(order+1)(x) / I_order(x), for x > 0 of any shape and order >= 0."""
    return _ratios(order, x)[1][-1]


def _ratios(order: float, x: Tensor, steps: int = 20) -> tuple[float, list[Tensor]]:
    """I_(v+1)/I_v for v = order + steps - 1 down to order.

    They come from the stable recurrence I_(v-1) = I_(v+1) + 2v/x I_v.
    """
    top = order + steps
    ratio = (_olver(top + 1, x) - _olver(top, x)).exp()
    ratios = []
    for i in range(steps):
        ratio = 1 / (2 * (top - i) / x + ratio)
        ratios.append(ratio)
    return top, ratios


def _olver(order: float, x: Tensor) -> Tensor:
    """log I_order(x) - x for orders of at least 20, uniformly in x, to 1e-7.

    Source: DLMF 10.41.3 (Olver's expansion), with four terms.
    """
    root = (order**2 + x.square()).sqrt()
    p = order / root
    terms = [
        (3 * p - 5 * p**3) / 24,
        (81 * p**2 - 462 * p**4 + 385 * p**6) / 1152,
        (30375 * p**3 - 369603 * p**5 + 765765 * p**7 - 425425 * p**9) / 414720,
    ]
    series = torch.stack([term / order ** (k + 1) for k, term in enumerate(terms)]).sum(0)
    exponent = order**2 / (root + x) + order * (x / (order + root)).log()
    return exponent - 0.5 * (math.log(2 * math.pi) + root.log()) + torch.log1p(series)
