"""Objectives: how a draw from the guide becomes a loss.

An objective is a callable ``objective(model, guide, *args, **kwargs) -> Estimate``. Its loss is a sum over the batch, in
nats, as in Pyro; no objective asks the device for a number, so that a step never waits for it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

from torch import Tensor

from ..programs.sites import Program

Schedule = Callable[[int], float]


class Estimate(NamedTuple):
    """An objective's estimate for a batch: sums over its data, in nats, of shape ()."""

    loss: Tensor
    """What is minimised; the only differentiable member."""
    log_likelihood: Tensor
    """E_q[log p(x | z)], whatever the objective weighs."""
    kl: Tensor
    """KL(q(z | x) || p(z)), never annealed."""

    @property
    def elbo(self) -> Tensor:
        """The true ELBO, E_q[log p(x | z)] - KL(q(z | x) || p(z))."""
        return self.log_likelihood - self.kl


class Objective(Protocol):
    """What :class:`pyro_vae.SVI` minimises."""

    def __call__(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> Estimate: ...


@runtime_checkable
class Scheduled(Protocol):
    """An objective that changes as optimisation proceeds."""

    def at(self, step: int) -> Objective:
        """The objective at an optimisation step."""
        ...
