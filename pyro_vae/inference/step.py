"""One optimisation step, run eagerly: on one process, or on several whose gradients are summed.

:mod:`pyro_vae.inference.graph_step` has the steps that are compiled graphs.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.optim import Optimizer

from ..objectives.objective import Estimate, Objective
from ..programs.pair import Pair
from ..programs.rows import Call
from .distributed import all_reduce_sum, broadcast, world_size
from .optimiser import forget_gradients, take_step


class Gradients(Protocol):
    """Computes an objective and leaves its gradient in the parameters."""

    def __call__(self, objective: Objective, call: Call) -> Estimate: ...


class Steps(Protocol):
    """Takes an optimisation step for each call; yields each estimate after its step.

    An objective is asked for before its step. Between the steps nothing else may change modules or
    optimiser, except for learning rates.
    """

    def __call__(
        self, objectives: Iterable[Objective], calls: Sequence[Call]
    ) -> Iterator[Estimate]: ...


class EagerGradients:
    """The gradient from an eager run of the objective."""

    def __init__(self, pair: Pair) -> None:
        self.pair = pair

    def __call__(self, objective: Objective, call: Call) -> Estimate:
        with self.pair.isolated(validate=False):
            estimate = objective.score(self.pair, *call)
            estimate.loss.backward()  # type: ignore[no-untyped-call]
        return estimate


class SeparateSteps:
    """Compute gradients, sum them over the processes, and then step with the torch optimiser."""

    def __init__(
        self, pair: Pair, gradients: Gradients, optim: Optimizer, clip_norm: float | None
    ) -> None:
        self.pair = pair
        self.gradients = gradients
        self.optim = optim
        self.clip_norm = clip_norm
        self._alike = world_size() == 1

    def __call__(
        self, objectives: Iterable[Objective], calls: Sequence[Call]
    ) -> Iterator[Estimate]:
        yield from map(self._step, objectives, calls)

    def _step(self, objective: Objective, call: Call) -> Estimate:
        self._make_alike()
        forget_gradients(self.optim)
        estimate = self.gradients(objective, call)
        parameters = trained(self.optim)
        if world_size() > 1:
            _sum_gradients(parameters)
            broadcast([b for module in self.pair.modules for b in module.buffers()])
        if self.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(parameters, self.clip_norm)
        take_step(self.optim)
        return estimate.detached()

    def _make_alike(self) -> None:
        """Copy the weights of the first process to all processes, once."""
        if not self._alike:
            modules = self.pair.modules
            broadcast([*trained(self.optim), *(b for m in modules for b in m.buffers())])
            self._alike = True


def trained(optim: Optimizer) -> list[Tensor]:
    """The parameters of an optimiser that are not frozen."""
    return [p for group in optim.param_groups for p in group["params"] if p.requires_grad]


def _sum_gradients(parameters: Sequence[Tensor]) -> None:
    """Sum the gradients over the processes in one transfer, because losses are sums over the data.

    A parameter that no process uses keeps the gradient None, as with one process.
    """
    used = torch.tensor([float(p.grad is not None) for p in parameters])
    used = all_reduce_sum(used.to(parameters[0].device))
    shared = [p for p, count in zip(parameters, used.tolist(), strict=True) if count]
    grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in shared]
    flat = all_reduce_sum(torch.cat([grad.reshape(-1) for grad in grads]))
    for p, part in zip(shared, flat.split([p.numel() for p in shared]), strict=True):
        p.grad = part.view_as(p)
