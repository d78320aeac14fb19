"""Monotone rational-quadratic splines of many points at once, without gradients."""

import math

import torch
from torch import Tensor

BOUND = 5.0
"""The spline is the identity outside [-5, 5]."""


def spline(x: Tensor, outputs: Tensor, bins: int, slope: float) -> tuple[Tensor, Tensor]:
    """Transform points x; return them and log dy/dx, each of the shape of x.

    ``outputs`` (3 bins - 1, *x.shape) are the unconstrained widths and heights of the bins, and
    the derivatives at the knots between them; ``outputs`` is overwritten. The formulas are those
    of ``zuko.transforms.MonotonicRQSTransform``, which has the bins innermost: a pass over eight
    numbers at a time, and each of them divided by their sum. Here a pass goes over all points, and
    the sum multiplies x. There are at least two bins.

    Source: Durkan et al., *Neural Spline Flows*, 2019.
    """
    limit = abs(math.log(slope))
    sizes, inner = outputs[: 2 * bins], outputs[2 * bins :]
    sizes.div_(sizes.abs().mul_(2 / limit).add_(1)).exp_()
    widths, heights = sizes[:bins], sizes[bins:]
    edges, levels = widths.cumsum(0), heights.cumsum(0)
    unit_x, unit_y = edges[-1] / (2 * BOUND), levels[-1] / (2 * BOUND)
    at = (x + BOUND) * unit_x
    bin = torch.lt(edges[:-1], at, out=torch.empty_like(edges[:-1])).sum(0, keepdim=True).long()
    width, height = widths.gather(0, bin)[0], heights.gather(0, bin)[0]
    left, bottom, before = (_before(values, bin) for values in (edges, levels, inner))
    after = inner.gather(0, bin.clamp(max=bins - 2))[0] * (bin[0] < bins - 1)
    d0, d1 = ((d / (1 + d.abs() / limit)).exp() for d in (before, after))
    mean = height * unit_x / (width * unit_y)
    z = ((at - left) / width).clamp(0, 1)
    rest = 1 - z
    both = z * rest
    below = mean + (d0 + d1 - 2 * mean) * both
    y = (bottom + height * (mean * z * z + d0 * both) / below) / unit_y - BOUND
    rise = 2 * mean * both + d0 * rest * rest + d1 * z * z
    inside = (x > -BOUND) & (x <= BOUND)
    log_slope = torch.log(rise * (mean / below).square())
    return torch.where(inside, y, x), log_slope.where(inside, 0.0)


def _before(values: Tensor, bin: Tensor) -> Tensor:
    """The values at the left end of the bins; they are 0 at that of the first."""
    return values.gather(0, (bin - 1).clamp(min=0))[0] * (bin[0] > 0)
