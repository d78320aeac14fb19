"""The update of Adam and AdamW, as a function of tensors: part of a compiled step."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

FLAGS = ("betas", "eps", "weight_decay", "amsgrad", "maximize", "decoupled_weight_decay")


def adam_state(optim: Optimizer, p: Tensor, amsgrad: bool) -> list[Tensor]:
    """Adam's step count and moments of one parameter, in torch's own state; created if missing."""
    state = optim.state[p]
    names = ["exp_avg", "exp_avg_sq"] + ["max_exp_avg_sq"] * amsgrad
    if not state:
        state.update(
            {"step": torch.zeros((), device=p.device)}
            | {name: torch.zeros_like(p).detach() for name in names}
        )
    return [state[name] for name in ("step", *names)]


def adam_update(
    p: Tensor, grad: Tensor, state: Sequence[Tensor], lr: Tensor, flags: dict[str, Any]
) -> None:
    """Torch's Adam and AdamW for one parameter; learning rate and step count are tensors.

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
    second.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
    if largest:
        torch.maximum(largest[0], second, out=largest[0])
    scale = (largest[0] if largest else second).sqrt() / (1 - beta2**step).sqrt() + flags["eps"]
    p.sub_(lr / (1 - beta1**step) * first / scale)
