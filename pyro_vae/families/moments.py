"""Moments of distributions."""

from typing import Any

from torch import Tensor


def mean(distribution: Any, num_samples: int = 64) -> Tensor:
    """Return the mean of a distribution, or without a closed form the mean of draws from it."""
    try:
        exact: Tensor = distribution.mean
    except (NotImplementedError, AttributeError):
        sampled: Tensor = distribution.sample((num_samples,)).mean(0)
        return sampled
    return exact
