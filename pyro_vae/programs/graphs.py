"""Programs as one graph: trace them by running them, once, and compile what they did.

A Pyro program is Python that calls torch. Run under ``make_fx``, with every parameter, buffer and
datum as an argument, it leaves behind the torch operations it performed, without handlers and
distributions. This list is compiled by TorchInductor.
"""

from collections.abc import Callable, Hashable, Iterable, Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils import _pytree as pytree

from .compiler import CannotCompile, compile_graph
from .cuda_graph import CudaGraph
from .isolation import isolated

MAX_GRAPHS = 4
"""Graphs compiled for one function; a further shape of the data runs eagerly."""


class Numbers:
    """The Python numbers, flags and names of some objects, which a graph holds."""

    SIMPLE = (bool, int, float, str, type(None))
    FREE = frozenset({"training", "_pyro_name", "_is_full_backward_hook"})
    """No part of what a program computes, or part of the graph's key."""

    def __init__(self, *owners: Any) -> None:
        self._owners = owners
        attributes = [(owner, vars(owner)) for owner in owners if hasattr(owner, "__dict__")]
        self._names = [
            (type(owner).__name__, at, key)
            for owner, at in attributes
            for key in at
            if self._counts(at, key)
        ]
        self._held = self._now()

    def _counts(self, attributes: dict[str, Any], key: str) -> bool:
        return key not in self.FREE and isinstance(attributes[key], self.SIMPLE)

    def _now(self) -> list[Any]:
        return [attributes.get(key) for _, attributes, key in self._names]

    def belong_to(self, owner: Any) -> bool:
        """Whether these are the numbers of this object alone."""
        return len(self._owners) == 1 and self._owners[0] is owner

    def check(self) -> None:
        """Raise ``ValueError`` where one has changed between two calls."""
        now = self._now()
        if len(now) and now != self._held:
            triples = zip(self._names, now, self._held, strict=True)
            (owner, _, key), new, old = next(each for each in triples if each[1] != each[2])
            raise ValueError(
                f"expected {owner}.{key} = {old!r}, which the compiled graph holds, got {new!r}: "
                "make it a tensor (register_buffer), or build what is compiled anew"
            )


class Modules(nn.Module):
    """The modules behind some programs, with their tensors as explicit arguments.

    A graph reads everything else of a module once: a number that changes afterwards is refused.
    """

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        super().__init__()
        self.owners = nn.ModuleList(modules)
        # where each tensor and number is: to walk through the modules at every step costs more
        self._homes: dict[str, tuple[dict[str, Any], str]] = {}
        self._all = tuple(self.modules())
        seen: set[Tensor] = set()
        for prefix, module in self.named_modules():
            for members in (module._parameters, module._buffers):
                for key, value in members.items():
                    if value is not None and value not in seen:
                        self._homes[f"{prefix}.{key}"] = members, key
                        seen.add(value)
        self.numbers = Numbers(*self._all)

    def tensors(self) -> dict[str, Tensor]:
        """The parameters and buffers, by name; a shared tensor appears once."""
        return {name: members[key] for name, (members, key) in self._homes.items()}

    def modes(self) -> tuple[bool, ...]:
        """Which modules are in ``train`` mode: each combination has a graph of its own."""
        return tuple(module.training for module in self._all)

    def forward(self, function: Callable[[], Any]) -> Any:
        return function()

    def run(self, tensors: dict[str, Tensor], function: Callable[[], Any]) -> Any:
        """Run ``function`` while the modules hold ``tensors`` in place of their own."""
        return functional_call(self, tensors, (function,))


class Graphs:
    """A function of the modules' tensors and of data, compiled for each shape of the data."""

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        self.modules = Modules(modules)
        if not len(self.modules.owners):
            raise CannotCompile(
                "expected programs over modules, got none whose parameters could be arguments: "
                "use the eager path, compile=False"
            )
        self._graphs: dict[Any, Callable[..., Any]] = {}

    def __call__(
        self,
        function: Callable[..., Any],
        state: Sequence[Sequence[Tensor]],
        data: tuple[Any, ...],
        key: Any = None,
    ) -> Any:
        """Run ``function(tensors, state, data)``: compiled where it may be, eagerly beyond.

        ``tensors`` are those of the modules by name, which hold them meanwhile. The tensors in
        ``state`` and ``data`` are inputs too; ``state`` lives on from call to call, and may be
        written to. Whatever is no tensor is part of the graph, as is all that ``key`` names.
        The result is a list of tensors.
        """
        leaves, spec = _flattened(data)
        return self._bound(function, state, leaves, spec, key)(leaves)

    def bound(
        self,
        function: Callable[..., Any],
        state: Sequence[Sequence[Tensor]],
        data: tuple[Any, ...],
        key: Any = None,
    ) -> Callable[[tuple[Any, ...]], Any]:
        """The same as a function of the data alone, for several calls with tensors like these.

        Between the calls only the values of tensors may change: ``modules.numbers`` says whether
        anything else did.
        """
        run = self._bound(function, state, *_flattened(data), key)
        return lambda data: run(_flattened(data)[0])

    def _bound(
        self,
        function: Callable[..., Any],
        state: Sequence[Sequence[Tensor]],
        leaves: Sequence[Any],
        spec: pytree.TreeSpec | None,
        key: Any,
    ) -> Callable[[Sequence[Any]], Any]:
        """The same as a function of the leaves of the data."""
        self.modules.numbers.check()
        tensors = self.modules.tensors()
        fixed = [value.detach() for value in tensors.values()]
        fixed += [value for slot in state for value in slot]
        inputs = _inputs(leaves)

        def flat(*values: Tensor) -> Any:
            take = iter(values)
            now = {name: next(take) for name in tensors}
            slots = [list(islice(take, len(slot))) for slot in state]
            filled = [next(take) if isinstance(leaf, Tensor) else leaf for leaf in leaves]
            filled = filled if spec is None else pytree.tree_unflatten(filled, spec)
            return function(now, slots, tuple(filled))

        static = tuple(leaf for leaf in leaves if not isinstance(leaf, Tensor))
        shapes = tuple((x.shape, x.dtype, x.device) for x in (*fixed[:1], *inputs))
        _check_hashable(static)
        key = (key, shapes, static, _hashable(spec), len(fixed), self.modules.modes())
        if key not in self._graphs:
            if len(self._graphs) == MAX_GRAPHS:
                return lambda leaves: self._eagerly(flat, [*fixed, *_inputs(leaves)])
            compiled = compile_graph(flat, [*fixed, *inputs])
            self.modules.numbers.check()  # a run may itself change them
            cuda = fixed[0].is_cuda
            self._graphs[key] = CudaGraph(compiled) if cuda else _plain(compiled)
        graph = self._graphs[key]
        return lambda leaves: graph(fixed, _inputs(leaves))

    def _eagerly(self, function: Callable[..., Any], inputs: Sequence[Tensor]) -> Any:
        self.modules.numbers.check()
        return function(*inputs)


def _inputs(leaves: Sequence[Any]) -> list[Tensor]:
    """The tensors among the leaves, as a graph takes them."""
    return [leaf.contiguous() for leaf in leaves if isinstance(leaf, Tensor)]


def _check_hashable(arguments: tuple[Any, ...]) -> None:
    """Raise ``TypeError`` where an argument that is part of a graph has no hash."""
    unhashable = [type(a).__name__ for a in arguments if not isinstance(a, Hashable)]
    if unhashable:
        raise TypeError(
            "expected tensors, numbers and other hashable arguments for a compiled program, "
            f"got {unhashable[0]}: pass it as a tensor, or use compile=False"
        )


def _flattened(data: tuple[Any, ...]) -> tuple[Sequence[Any], pytree.TreeSpec | None]:
    """The leaves and the nesting of arguments; tensors alone, the usual case, have none."""
    if all(isinstance(leaf, Tensor) for leaf in data):
        return data, None
    return pytree.tree_flatten(data)


def _hashable(spec: pytree.TreeSpec | None) -> Any:
    """What tells two nestings of arguments apart; torch 2.7's ``TreeSpec`` has no hash."""
    try:
        hash(spec)
    except TypeError:
        return repr(spec)
    return spec


def _plain(compiled: Callable[..., Any]) -> Callable[..., Any]:
    return lambda fixed, data: compiled(*fixed, *data)


class GraphFunction:
    """A function of programs and data, without gradients, compiled over the pair's modules."""

    def __init__(self, function: Callable[..., Any], modules: Iterable[nn.Module]) -> None:
        self.function = function
        self._graphs = Graphs(modules)

    def __call__(self, *arguments: Any) -> Any:
        """Return ``function(*arguments)``, a list of tensors."""

        def run(tensors: dict[str, Tensor], state: Any, data: Any) -> list[Tensor]:
            modules = self._graphs.modules
            with torch.no_grad(), isolated(modules.owners, validate=False):
                return list(modules.run(tensors, lambda: self.function(*data)))

        return self._graphs(run, (), arguments)
