"""The update of Adam and AdamW, as a function of tensors: part of a compiled step."""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

FLAGS = ("betas", "eps", "weight_decay", "amsgrad", "maximize", "decoupled_weight_decay")


def adam_state(optim: Optimizer, p: Tensor, amsgrad: bool) -> list[Tensor]:
    """Adam's step count and moments of one parameter in torch's state; they are created once."""
    state = optim.state[p]
    names = ["exp_avg", "exp_avg_sq"] + ["max_exp_avg_sq"] * amsgrad
    if not state:
        state.update(
            {"step": torch.zeros((), device=p.device)}
            | {name: torch.zeros_like(p).detach() for name in names}
        )
    return [state[name] for name in ("step", *names)]


class Corrections:
    """The bias corrections of the coming updates of n parameters, (2, n) each: a call returns them.

    1 / (1 - beta1^t),   1 / sqrt(1 - beta2^t),   where t is the step count after the update. They
    are computed outside the graph: inside, the compiler would repeat the powers for every 16
    elements. On the CPU Python's numbers take a fifth of the time of tensors, and the corrections
    of coming steps are computed together. On a GPU Python's numbers would synchronise with it.
    """

    AHEAD = 64
    """The steps whose corrections are computed together."""

    def __init__(self, states: Sequence[Sequence[Tensor]], betas: Sequence[float]) -> None:
        self.counts = [state[0] for state in states]
        self.device, self.dtype = self.counts[0].device, states[0][1].dtype
        self.betas = betas
        self._coming: list[Tensor] = []
        self._expected: list[float] = []

    def __call__(self, updates: int = 1) -> list[Tensor]:
        if self.device.type != "cpu":
            ahead = torch.arange(1, updates + 1, device=self.device).unsqueeze(1)
            t = torch.stack(self.counts).double() + ahead
            return [*torch.stack(corrections(t, self.betas, torch.expm1), 1).to(self.dtype)]
        steps = [count.item() for count in self.counts]  # they may have been set anew
        if steps != self._expected:
            self._coming = self._computed(steps, updates)  # they may differ again next time
        elif len(self._coming) < updates:
            self._coming = self._computed(steps, max(updates, self.AHEAD))
        self._expected = [step + updates for step in steps]
        return [self._coming.pop() for _ in range(updates)]

    def _computed(self, steps: Sequence[float], number: int) -> list[Tensor]:
        """The corrections of the next updates, the last first."""
        counts = {step + ahead for step in steps for ahead in range(1, number + 1)}
        known = {t: corrections(t, self.betas, math.expm1) for t in counts}
        rows = [
            [*zip(*(known[step + ahead] for step in steps), strict=True)]
            for ahead in range(number, 0, -1)
        ]
        return [row.clone() for row in torch.tensor(rows, dtype=self.dtype)]


class Rates:
    """The learning rate and the corrections of each parameter group, one after the other."""

    def __init__(
        self, optim: Optimizer, states: Sequence[Sequence[Tensor]], groups: Sequence[int]
    ) -> None:
        """For parameters of these states and of these groups, by number."""
        self.optim = optim
        self._corrections = {
            i: Corrections(
                [state for state, j in zip(states, groups, strict=True) if i == j],
                optim.param_groups[i]["betas"],
            )
            for i in sorted(set(groups))
        }

    def of(self, steps: int) -> Iterator[list[Tensor]]:
        """Those of each of several steps, between which nothing else changes the step counts.

        A learning rate is read before its step.
        """
        ahead = zip(*(each(steps) for each in self._corrections.values()), strict=True)
        return map(self._with_learning_rates, ahead)

    def _with_learning_rates(self, columns: Sequence[Tensor]) -> list[Tensor]:
        groups = self.optim.param_groups
        lrs = [learning_rate(groups[i]["lr"], each) for i, each in self._corrections.items()]
        return [*chain(*zip(lrs, columns, strict=True))]


def corrections(t: Any, betas: Sequence[float], expm1: Callable[[Any], Any]) -> tuple[Any, Any]:
    """1 / (1 - beta1^t), 1 / sqrt(1 - beta2^t), for a number or a tensor t."""
    first, second = (math.log(beta) if beta else -math.inf for beta in betas)
    return -1 / expm1(t * first), (-expm1(t * second)) ** -0.5


def adam_update(
    p: Tensor,
    grad: Tensor,
    state: Sequence[Tensor],
    lr: Tensor,
    corrections: Tensor,
    flags: dict[str, Any],
) -> None:
    """Torch's Adam and AdamW for one parameter, given its column of :class:`Corrections`.

    Torch's functional form divides by a learning rate that is a tensor. This gives NaN where a
    warm-up starts at 0.
    """
    beta1, beta2 = flags["betas"]
    step, first, second, *largest = state
    step += 1
    grad = -grad if flags["maximize"] else grad
    if flags["weight_decay"] and flags["decoupled_weight_decay"]:
        p.mul_(1 - lr * flags["weight_decay"])
    elif flags["weight_decay"]:
        grad = grad + flags["weight_decay"] * p
    first.lerp_(grad, 1 - beta1)
    # for pixels that are rarely lit it would decay to subnormal numbers, which are slow
    first.masked_fill_(first.abs() < torch.finfo(first.dtype).tiny, 0.0)
    second.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
    if largest:
        torch.maximum(largest[0], second, out=largest[0])
    root = (largest[0] if largest else second).sqrt()
    p.sub_(lr * corrections[0] * first / (root * corrections[1] + flags["eps"]))


def scalar(value: Any, device: torch.device, dtype: torch.dtype) -> Tensor:
    """A number as a tensor on the device, without synchronising with the device."""
    if isinstance(value, Tensor):
        return value.to(device)
    return _constant(float(value), device, dtype)


def learning_rate(lr: Any, like: Corrections) -> Tensor:
    """A learning rate as a tensor of shape (); torch takes tensors of one element too."""
    if isinstance(lr, Tensor):
        lr = lr.detach().to(like.dtype).reshape(())
    return scalar(lr, like.device, like.dtype)


@lru_cache(maxsize=64)
def _constant(value: float, device: torch.device, dtype: torch.dtype) -> Tensor:
    """A tensor that no graph writes to: nearly all steps have the same numbers."""
    return torch.full((), value, device=device, dtype=dtype)
