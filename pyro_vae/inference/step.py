"""An SVI step as one graph: the objective, its gradient, the clip and Adam's update.

Whatever changes from step to step enters the graph as a tensor: parameters, buffers, the optimiser's state, learning
rates, beta, the data. So annealing and learning-rate schedules compile nothing anew. A Python number that a module or an
objective holds is part of the graph; where it changes later, the next step raises ``ValueError``.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, cast

import torch
from torch import Tensor
from torch.optim import Adam, Optimizer
from torch.utils import _pytree as pytree

from ..objectives.estimate import Estimate, Objective
from ..programs.graphs import Graphs, Modules, Numbers, Structure
from ..programs.isolation import frozen_allowed, isolated
from ..programs.sites import Program

Update = Callable[
    [Sequence[Tensor], Sequence[Tensor], Sequence[Sequence[Tensor]], Sequence[Tensor]], None
]


FLAGS = ("betas", "eps", "weight_decay", "amsgrad", "maximize", "decoupled_weight_decay")


class GraphStep:
    """The compiled objective of a pair of programs: its loss and gradient, or the whole optimisation step."""

    def __init__(
        self, model: Program, guide: Program, optim: Optimizer, clip_norm: float | None = None
    ) -> None:
        self.model, self.guide, self.optim, self.clip_norm = model, guide, optim, clip_norm
        self.modules = Modules(model, guide)
        self.objective_numbers = Numbers()
        self._graphs = Graphs()

    @property
    def fuses_update(self) -> bool:
        """Whether the optimiser's update can be part of the graph: Adam and AdamW."""
        return isinstance(self.optim, Adam)

    def step(self, objective: Objective, args: Any, kwargs: Any) -> Estimate:
        """Take one optimisation step with :class:`torch.optim.Adam` or a child of it, whose state is kept where it lives."""
        group_of = {
            p: i for i, group in enumerate(self.optim.param_groups) for p in group["params"]
        }
        trained = self._trained()
        groups = [group_of[p] for p in trained.values()]
        state = [
            _adam_state(self.optim, p, self.optim.param_groups[i]["amsgrad"])
            for p, i in zip(trained.values(), groups, strict=True)
        ]
        device = state[0][0].device
        rates = [_scalar(group["lr"], device) for group in self.optim.param_groups]
        flags = [{flag: group.get(flag) for flag in FLAGS} for group in self.optim.param_groups]

        def update(params: Any, grads: Any, state: Any, rates: Any) -> None:
            used = [
                i for i, grad in enumerate(grads) if grad is not None
            ]  # a batch may leave a part idle
            grads = [grads[i] for i in used]
            if self.clip_norm is not None:
                grads = clipped(grads, self.clip_norm)
            for i, grad in zip(used, grads, strict=True):
                _adam(params[i], grad, state[i], rates[groups[i]], flags[groups[i]])

        self.optim._opt_called = True  # type: ignore[attr-defined]  # what learning-rate schedulers look for
        return Estimate(
            *self._run(
                objective,
                args,
                kwargs,
                tuple(trained),
                state,
                rates,
                update,
                key=(tuple(groups), repr(flags), self.clip_norm),
            )
        )

    def loss(self, objective: Objective, args: Any, kwargs: Any) -> Estimate:
        """Return the estimate, whose loss has the gradient that the same pass through the graph computed."""
        trained = self._trained()
        return Estimate(
            *_Loss.apply(
                lambda: self._run(objective, args, kwargs, tuple(trained)), *trained.values()
            )
        )

    def _trained(self) -> dict[str, Tensor]:
        held = {p for group in self.optim.param_groups for p in group["params"]}
        return {
            name: p for name, p in self.modules.tensors().items() if p.requires_grad and p in held
        }

    def _run(
        self,
        objective: Objective,
        args: Any,
        kwargs: Any,
        trained: tuple[str, ...],
        state: Sequence[Sequence[Tensor]] = (),
        rates: Sequence[Tensor] = (),
        update: Update | None = None,
        key: Any = None,
    ) -> list[Tensor]:
        """Return loss, log-likelihood and KL, and without an ``update`` of the parameters the gradients too."""
        self._check_numbers(objective)
        tensors = self.modules.tensors()
        beta = getattr(objective, "beta", None)
        scalars = [] if beta is None else [_scalar(beta, tensors[trained[0]].device)]
        leaves, spec = pytree.tree_flatten((args, kwargs))

        def function(*inputs: Tensor) -> list[Tensor]:
            take = iter(inputs)
            now = dict(zip(tensors, take, strict=False))
            slots = [list(islice(take, len(slot))) for slot in state]
            rates_ = list(islice(take, len(rates)))
            scheduled = replace(cast(Any, objective), beta=next(take)) if scalars else objective
            args, kwargs = pytree.tree_unflatten(
                [next(take) if isinstance(leaf, Tensor) else leaf for leaf in leaves], spec
            )

            def run() -> Estimate:
                with frozen_allowed(
                    self.model, self.guide
                ):  # whatever is not trained carries no gradient here
                    return scheduled(self.model, self.guide, *args, **kwargs)

            with torch.enable_grad(), isolated(validate=False):
                free = {name: now[name].detach().requires_grad_() for name in trained}
                estimate = self.modules.run(now | free, run)
                grads = torch.autograd.grad(estimate.loss, list(free.values()), allow_unused=True)
            results = [value.detach() for value in estimate]
            if update is None:
                if any(grad is None for grad in grads):
                    raise ValueError(
                        "expected every parameter to get a gradient from each batch, or Adam"
                    )
                return [*results, *grads]
            with torch.no_grad():
                update([now[name] for name in trained], grads, slots, rates_)
            return results

        fixed = [value.detach() for value in tensors.values()] + [
            value for slot in state for value in slot
        ]
        data = [*rates, *scalars, *(leaf for leaf in leaves if isinstance(leaf, Tensor))]
        static = tuple(leaf for leaf in leaves if not isinstance(leaf, Tensor))
        key = key, trained, objective_key(objective), static, Structure(spec), self.modules.modes()
        results = self._graphs(function, fixed, data, key)
        self.modules.numbers.hold()
        return cast(list[Tensor], results)

    def _check_numbers(self, objective: Objective) -> None:
        """Raise ``ValueError`` where a Python number that the graph holds has changed since the last step."""
        self.modules.numbers.check()
        if not self.objective_numbers.belong_to(objective):
            self.objective_numbers = Numbers(objective)
        self.objective_numbers.check()


class _Loss(torch.autograd.Function):
    """A loss whose gradient was computed with it."""

    @staticmethod
    def forward(ctx: Any, run: Callable[[], list[Tensor]], *parameters: Tensor) -> Any:
        loss, log_likelihood, kl, *ctx.grads = run()
        ctx.mark_non_differentiable(log_likelihood, kl)
        return loss, log_likelihood, kl

    @staticmethod
    def backward(ctx: Any, *outputs: Any) -> Any:
        return None, *(outputs[0] * grad for grad in ctx.grads)


def clipped(grads: Sequence[Tensor], max_norm: float) -> list[Tensor]:
    """Scale gradients down to one Euclidean norm, of all of them together."""
    scale = (max_norm / (torch.nn.utils.get_total_norm(grads) + 1e-6)).clamp(max=1.0)
    return [grad * scale for grad in grads]


def objective_key(objective: Objective) -> Any:
    """What a graph depends on in an objective: all but the value of beta."""
    return replace(cast(Any, objective), beta=None) if hasattr(objective, "beta") else objective


def _scalar(value: Any, device: torch.device) -> Tensor:
    """A number as a tensor on the device, without waiting for it."""
    return value.to(device) if isinstance(value, Tensor) else torch.full((), value, device=device)


def _adam_state(optim: Optimizer, p: Tensor, amsgrad: bool) -> list[Tensor]:
    """Adam's step count and moments of one parameter, where torch keeps them, created as torch would."""
    state = optim.state[p]
    names = ["exp_avg", "exp_avg_sq"] + ["max_exp_avg_sq"] * amsgrad
    if not state:
        state.update(
            {"step": torch.zeros((), device=p.device)}
            | {name: torch.zeros_like(p).detach() for name in names}
        )
    return [state[name] for name in ("step", *names)]


def _adam(
    p: Tensor, grad: Tensor, state: Sequence[Tensor], lr: Tensor, flags: dict[str, Any]
) -> None:
    """Torch's Adam and AdamW for one parameter, with the learning rate and the step count as tensors.

    Torch's own functional form divides by the learning rate once that is a tensor, which is NaN where a warm-up starts at 0.
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
