"""Moments of distributions."""

from typing import Any

from torch import Tensor


def mean(distribution: Any, num_samples: int = 64) -> Tensor:
    """Return the mean of a distribution; without a closed form, that of ``num_samples`` draws."""
    try:
        exact: Tensor = distribution.mean
    except (NotImplementedError, AttributeError):
        sampled: Tensor = distribution.sample((num_samples,)).mean(0)
        return sampled
    return exact
