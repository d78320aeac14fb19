"""Distributions of partly observed data."""

from typing import Any

from torch import Tensor
from torch.distributions import Distribution, Independent


def elements(p: Distribution) -> tuple[Any, int]:
    """Return the distribution of single elements, and the number of its event dimensions.

    Raises ``ValueError`` where the elements of an event are not independent.
    """
    base: Any = p
    event_dim = 0
    while isinstance(base, Independent):
        base, event_dim = base.base_dist, event_dim + base.reinterpreted_batch_ndims
    if base.event_shape:
        raise ValueError(f"expected pixels that are independent given z, got {type(base).__name__}")
    return base, event_dim


def masked(p: Distribution, observed: Tensor) -> Any:
    """The distribution p restricted to the elements where ``observed`` is true.

    log p(x) is the sum of log p(x_d) over these elements. ``observed`` is boolean, (B, ...); the
    elements of one event may have any shape.

    Raises ``ValueError`` where the elements of an event are not independent.

    >>> import torch
    >>> from pyro.distributions import Normal
    >>> observed = torch.tensor([[True, False, True]])
    >>> masked(Normal(torch.zeros(1, 3), 1.0).to_event(1), observed).log_prob(torch.zeros(1, 3))
    tensor([-1.8379])
    """
    base, event_dim = elements(p)
    return base.mask(observed.reshape(len(observed), *p.event_shape)).to_event(event_dim)
