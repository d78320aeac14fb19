"""Optimisation steps as compiled graphs: the objective with its gradient, or the whole step.

Everything that changes from step to step is a tensor input of the graph: parameters, buffers, the
optimiser's state, learning rates, beta, the data.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor
from torch.optim import Adam, Optimizer

from ..objectives.objective import Estimate, Objective
from ..programs.graphs import Graphs, Numbers
from ..programs.pair import Pair
from ..programs.rows import Call, tensor_kinds
from .adam import FLAGS, Rates, adam_state, adam_update, scalar
from .distributed import world_size
from .step import EagerGradients, Gradients, SeparateSteps, Steps, trained


def choose_steps(pair: Pair, optim: Optimizer, clip_norm: float | None, compile: bool) -> Steps:
    """Return the steps of a pair for this optimiser and this number of processes."""
    fuses = compile and isinstance(optim, Adam) and world_size() == 1
    if fuses:
        return FusedSteps(pair, cast(Adam, optim), clip_norm)
    gradients: Gradients = GraphGradients(pair, optim) if compile else EagerGradients(pair)
    return SeparateSteps(pair, gradients, optim, clip_norm)


class _Graph:
    """The objective and its gradient as a graph."""

    def __init__(self, pair: Pair, optim: Optimizer) -> None:
        self.pair = pair
        self.optim = optim
        self._graphs: Graphs | None = None
        self._numbers = Numbers()

    @property
    def graphs(self) -> Graphs:
        """The compiled graphs; they are built at the first step, when the modules are known."""
        if self._graphs is None:
            self._graphs = Graphs(self.pair.modules)
        return self._graphs

    def names(self) -> dict[str, Tensor]:
        """The parameters that are trained, by name."""
        held = set(trained(self.optim))
        return {name: p for name, p in self.graphs.modules.tensors().items() if p in held}

    def bound(
        self,
        objective: Objective,
        call: Call,
        names: Sequence[str],
        then: Callable[[dict[str, Tensor], list[Tensor | None], Any, Any], list[Tensor]],
        state: Sequence[Sequence[Tensor]] = (),
        rates: Sequence[Tensor] = (),
        key: Any = None,
    ) -> Callable[[Objective, Call, Sequence[Tensor]], list[Tensor]]:
        """The objective and its gradient, followed by ``then``, whose tensors are the result.

        It is a function of the objective's beta, of data of this shape, and of the rates.
        """
        self._check_numbers(objective)
        with self.pair.isolated():
            self.pair.structure(call)  # found eagerly: a graph cannot read values
        first = self.graphs.modules.tensors()[names[0]]
        device, dtype = first.device, torch.promote_types(first.dtype, torch.float32)
        annealed = getattr(objective, "beta", None) is not None

        def flat(objective: Objective, call: Call, rates: Sequence[Tensor]) -> tuple[Any, ...]:
            beta = [scalar(cast(Any, objective).beta, device, dtype)] if annealed else []
            return (*rates, *beta, *call[0], *([call[1]] if call[1] else []))

        def function(tensors: dict[str, Tensor], slots: Any, data: Any) -> list[Tensor]:
            scalars, args = data[: len(rates) + annealed], data[len(rates) + annealed :]
            call_ = args[: len(call[0])], args[-1] if call[1] else {}
            # a copy, because an objective may write to its beta; the compiler leaves it out
            now = replace(cast(Any, objective), beta=scalars[-1].clone()) if annealed else objective
            with torch.enable_grad(), self.pair.isolated(validate=False):
                free = {name: tensors[name].detach().requires_grad_() for name in names}
                estimate = self.graphs.modules.run(
                    tensors | free, lambda: now.score(self.pair, *call_)
                )
                grads = torch.autograd.grad(estimate.loss, list(free.values()), allow_unused=True)
            results = [value.detach() for value in estimate]
            with torch.no_grad():
                return [*results, *then(tensors, list(grads), slots, scalars[: len(rates)])]

        key = key, tuple(names), objective_key(objective)
        graph = self.graphs.bound(function, state, flat(objective, call, rates), key)
        return lambda objective, call, rates: graph(flat(objective, call, rates))

    def _check_numbers(self, objective: Objective) -> None:
        if not self._numbers.belong_to(objective):
            self._numbers = Numbers(objective)
        self._numbers.check()


class GraphGradients(_Graph):
    """The gradient by one compiled graph."""

    def __call__(self, objective: Objective, call: Call) -> Estimate:
        names = self.names()

        def keep(tensors: Any, grads: list[Tensor | None], slots: Any, rates: Any) -> list[Tensor]:
            device = next(iter(tensors.values())).device
            return [torch.empty(0, device=device) if grad is None else grad for grad in grads]

        graph = self.bound(objective, call, list(names), keep)
        loss, log_likelihood, kl, *grads = graph(objective, call, ())
        for p, grad in zip(names.values(), grads, strict=True):
            p.grad = grad if grad.shape == p.shape else None  # None for unused ones, as in torch
        return Estimate(loss, log_likelihood, kl)


class FusedSteps(_Graph):
    """Objective, gradient, clip and the update of Adam or AdamW, as one graph.

    What the graph depends on is looked up before the first of several steps of one kind.
    """

    optim: Adam

    def __init__(self, pair: Pair, optim: Adam, clip_norm: float | None) -> None:
        super().__init__(pair, optim)
        self.clip_norm = clip_norm
        self._objective: Objective | None = None
        self._key: Any = None

    def __call__(
        self, objectives: Iterable[Objective], calls: Sequence[Call]
    ) -> Iterator[Estimate]:
        self.optim._opt_called = True  # type: ignore[attr-defined]  # for lr schedulers
        kinds = [tensor_kinds(call) for call in calls]  # here, where the caches are warm
        last = None
        for i, objective in enumerate(objectives):
            if objective is not self._objective:  # without a schedule it is always the same
                self._objective, self._kind = objective, objective_key(objective)
            kind = self._kind, kinds[i]
            if kind != last:
                run = self._prepared(kind, objective, calls[i])(len(calls) - i)
                last = kind
            yield run(objective, calls[i])

    def _prepared(
        self, kind: Any, objective: Objective, call: Call
    ) -> Callable[[int], Callable[[Objective, Call], Estimate]]:
        """The steps of a kind of objective and data; they are bound anew where anything changed."""
        self._check_numbers(objective)
        self.graphs.modules.numbers.check()
        if self._key != (kind, self._tensors_and_settings()):
            self._bound = self.bound_with_update(objective, call)
            self._key = kind, self._tensors_and_settings()  # with the state that this has made
        return self._bound

    def _tensors_and_settings(self) -> Any:
        """Where all tensors lie, which are trained, the modes, and the settings of the optimiser.

        The tensors of the last step are alive, so no other has the place of one of them.
        """
        modules, state = self.graphs.modules, self.optim.state
        groups = self.optim.param_groups
        return (
            modules.modes(),
            [x.data_ptr() for x in modules.tensors().values()],
            [[*map(group.get, FLAGS)] for group in groups],
            [[(id(p), p.requires_grad) for p in group["params"]] for group in groups],
            [*map(id, state)],  # to look up each parameter in the state takes longer
            [[*map(id, values.values())] for values in state.values()],
        )

    def bound_with_update(
        self, objective: Objective, call: Call
    ) -> Callable[[int], Callable[[Objective, Call], Estimate]]:
        """The step of objectives that differ in beta alone, and of data of this shape.

        It is given for so many steps, between which nothing else changes the step counts.
        """
        groups = self.optim.param_groups
        group_of = {p: i for i, group in enumerate(groups) for p in group["params"]}
        names = dict(sorted(self.names().items(), key=lambda item: group_of[item[1]]))
        which = [group_of[p] for p in names.values()]
        flags = [{flag: group.get(flag) for flag in FLAGS} for group in groups]
        state = [
            adam_state(self.optim, p, bool(flags[i]["amsgrad"]))
            for p, i in zip(names.values(), which, strict=True)
        ]
        rates = Rates(self.optim, state, which)

        def update(
            tensors: dict[str, Tensor], grads: list[Tensor | None], slots: Any, numbers: Any
        ) -> list[Tensor]:
            if self.clip_norm is not None:
                grads = clipped(grads, self.clip_norm)
            pairs = zip(numbers[::2], numbers[1::2], strict=True)
            columns = [(lr, column) for lr, each in pairs for column in each.unbind(1)]
            each = zip(names, grads, slots, which, columns, strict=True)
            for name, grad, slot, group, (lr, column) in each:
                if grad is not None:  # as in torch: no update without a gradient
                    adam_update(tensors[name], grad, slot, lr, column, flags[group])
            return []

        key = tuple(which), repr(flags), self.clip_norm
        first = next(rates.of(1))
        graph = self.bound(objective, call, list(names), update, state, first, key)

        def steps(number: int) -> Callable[[Objective, Call], Estimate]:
            each = rates.of(number)
            return lambda objective, call: Estimate(*graph(objective, call, next(each)))

        return steps


def clipped(grads: Sequence[Tensor | None], max_norm: float) -> list[Tensor | None]:
    """Scale gradients down to a maximal Euclidean norm, computed over all of them together."""
    given = [grad for grad in grads if grad is not None]
    scale = (max_norm / (torch.nn.utils.get_total_norm(given) + 1e-6)).clamp(max=1.0)
    return [None if grad is None else grad * scale for grad in grads]


def objective_key(objective: Objective) -> Any:
    """The part of an objective that a graph depends on: everything except the value of beta."""
    return replace(cast(Any, objective), beta=None) if hasattr(objective, "beta") else objective
