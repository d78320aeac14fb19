"""Moments of distributions."""

from typing import Any, cast

from torch import Tensor


def mean(distribution: Any, num_samples: int = 64) -> Tensor:
    """Return the mean of a distribution; of ``num_samples`` draws where the family knows no closed form."""
    try:
        return cast(Tensor, distribution.mean)
    except (NotImplementedError, AttributeError):
        return cast(Tensor, distribution.sample((num_samples,)).mean(0))
