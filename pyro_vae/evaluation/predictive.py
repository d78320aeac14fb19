"""Posterior predictive checks of a model against data."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from pyro import poutine
from torch import Tensor

from ..programs.pair import Pair
from ..programs.rows import Call
from ..programs.sites import Program, is_factor, stochastic_sites


@dataclass(frozen=True)
class PredictiveCheck:
    """A statistic T of the data x, and of S data sets x_rep replicated from the posterior."""

    observed: Tensor
    """T(x), of shape () or (B,)."""
    replicated: Tensor
    """T(x_rep), (S, ...)."""

    @property
    def p_value(self) -> Tensor:
        """The share of replications with T(x_rep) >= T(x), of shape () or (B,).

        It is near 0 or 1 where the model does not reproduce the statistic of the data.
        """
        return torch.mean((self.replicated >= self.observed).double(), 0)


def posterior_predictive_check(
    model: Program,
    guide: Program,
    *args: Any,
    statistic: Callable[[Tensor], Tensor],
    num_replications: int = 100,
    **kwargs: Any,
) -> PredictiveCheck:
    """Compare ``statistic(x)`` with ``statistic(x_rep)``, x_rep ~ p(x | z), z ~ q(z | x).

    There are ``num_replications`` replications. ``statistic`` maps all the data (B, ...) to one
    number, or to one number for each datum (B,).

    Source: Gelman, Meng & Stern, *Posterior Predictive Assessment of Model Fitness*, 1996.

    Raises ``ValueError`` unless the model observes one site.

    >>> ink = posterior_predictive_check(
    ...     vae.model, vae.guide, torch.ones(3, 64), statistic=torch.mean, num_replications=20
    ... )
    >>> float(ink.p_value)  # an untrained model draws fewer pixels of value 1
    0.0
    """
    pair = Pair(model, guide)
    call = (args, kwargs)
    with pair.looking():
        sites = stochastic_sites(pair.draw(*call).model_traces[0])
        observed = [site for site in sites if site["is_observed"] and not is_factor(site)]
        if len(observed) != 1:
            names = [site["name"] for site in observed]
            raise ValueError(f"expected one observed site, got {names}")
        name = observed[0]["name"]
        value = observed[0]["value"]
        replicated = [statistic(_replicate(pair, call, name)) for _ in range(num_replications)]
        return PredictiveCheck(statistic(value), torch.stack(replicated))


def _replicate(pair: Pair, call: Call, name: str) -> Tensor:
    """Return one draw x_rep ~ p(x | z), z ~ q(z | x)."""
    args, kwargs = call
    free = poutine.replay(poutine.uncondition(pair.model), trace=pair.guide_trace(call))
    value: Tensor = poutine.trace(free).get_trace(*args, **kwargs).nodes[name]["value"]
    return value
