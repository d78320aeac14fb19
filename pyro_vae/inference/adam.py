"""The update of Adam and AdamW, as a function of tensors: part of a compiled step."""

import math
from collections.abc import Callable, Sequence
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


def adam_rates(states: Sequence[Sequence[Tensor]], lr: Any, flags: dict[str, Any]) -> Tensor:
    """The numbers of the coming update of n parameters, (3, n): lr and the bias corrections.

    lr / (1 - beta1^t),   1 / sqrt(1 - beta2^t),   lr,   where t is the step count after the update.
    They are computed outside the graph: inside, the compiler would repeat the powers for every 16
    elements. On the CPU Python's numbers take a fifth of the time of tensors; on a GPU they would
    synchronise with it.
    """
    counts = [state[0] for state in states]
    dtype = states[0][1].dtype
    if counts[0].device.type == "cpu":
        steps = [count.item() for count in counts]  # of nearly all parameters the same
        known = {n: _rates(n + 1, float(lr), flags["betas"], math.expm1) for n in {*steps}}
        return torch.tensor([known[n] for n in steps], dtype=dtype).t()
    t = torch.stack(counts).double() + 1
    rates = _rates(t, lr * torch.ones_like(t), flags["betas"], torch.expm1)
    return torch.stack(rates).to(dtype)


def _rates(t: Any, lr: Any, betas: Sequence[float], expm1: Callable[[Any], Any]) -> Any:
    """lr / (1 - beta1^t), 1 / sqrt(1 - beta2^t), lr, for a number or a tensor t."""
    first, second = (math.log(beta) if beta else -math.inf for beta in betas)
    return lr / -expm1(t * first), (-expm1(t * second)) ** -0.5, lr


def adam_update(
    p: Tensor, grad: Tensor, state: Sequence[Tensor], rates: Tensor, flags: dict[str, Any]
) -> None:
    """Torch's Adam and AdamW for one parameter; ``rates`` is its column of :func:`adam_rates`.

    Torch's functional form divides by a learning rate that is a tensor. This gives NaN where a
    warm-up starts at 0.
    """
    beta1, beta2 = flags["betas"]
    rate, correction, lr = rates
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
    p.sub_(rate * first / (root * correction + flags["eps"]))
