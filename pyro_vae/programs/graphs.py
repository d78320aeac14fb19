"""Programs as one graph: trace them by running them, once, and compile what they did.

A Pyro program is Python that calls torch; run under ``make_fx`` with every parameter, buffer and datum as an argument it
leaves behind the list of torch operations it performed, handlers and distributions long gone. That list, the gradient
and the optimiser's update included, is compiled by TorchInductor.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils import _pytree as pytree

from ..nets.linear import DECOMPOSITIONS
from .isolation import isolated, modules_of
from .sites import Program

MAX_GRAPHS = 4
"""Graphs compiled for one function; a further shape of the data runs eagerly. A fit needs two: full and last batch."""


REPEATING = ("2.13.", "2.14.")
"""Versions of torch whose compiled random numbers on CUDA can repeat in fours (2.15 takes a slower path)."""


class CannotCompile(RuntimeError):
    """Raised where programs have no compiled form; the message names the reason and the eager path."""


def compile_graph(function: Callable[..., Any], inputs: Sequence[Tensor]) -> Callable[..., Any]:
    """Compile a function of a flat list of tensors, for inputs of these shapes; it may write to its inputs.

    Raises :class:`CannotCompile` where the function's control flow depends on values, no compiler is at hand, or the
    random numbers that this version of torch compiles for CUDA repeat.
    """
    if torch.__version__.startswith(REPEATING) and any(x.is_cuda for x in inputs):
        raise CannotCompile(
            "expected torch before 2.13, or from 2.15 on, to compile for CUDA, "
            f"got {torch.__version__}, whose compiled random numbers repeat: use the eager path, compile=False"
        )
    try:
        with (
            warnings.catch_warnings()
        ):  # the compiler calls functions that torch itself has deprecated
            warnings.simplefilter("ignore", FutureWarning)
            return _compile(function, inputs)
    except Exception as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise CannotCompile(
            f"cannot compile these programs ({reason[0]}): use the eager path, compile=False"
        ) from error


def _compile(function: Callable[..., Any], inputs: Sequence[Tensor]) -> Callable[..., Any]:
    graph = make_fx(function, decomposition_table=DECOMPOSITIONS, tracing_mode="fake")(*inputs)
    compiled: Callable[..., Any] = torch._inductor.compile(graph, list(inputs))
    return compiled


class Modules(nn.Module):
    """The modules behind some programs, with their tensors as explicit arguments of whatever runs inside."""

    def __init__(self, *programs: Program) -> None:
        super().__init__()
        self.owners = nn.ModuleList(modules_of(*programs))
        if not len(self.owners):
            raise CannotCompile(
                "expected model and guide to be methods of modules, got functions: use the eager path, compile=False"
            )
        # where each tensor lives: a walk through the modules at every step would cost more than the walk's result
        self._homes: dict[str, tuple[dict[str, Any], str]] = {}
        self._all = tuple(self.modules())
        self.numbers = Numbers(*self._all)
        seen: set[Tensor] = set()
        for prefix, module in self.named_modules():
            for members in (module._parameters, module._buffers):
                for key, value in members.items():
                    if value is not None and value not in seen:
                        self._homes[f"{prefix}.{key}"] = members, key
                        seen.add(value)

    def tensors(self) -> dict[str, Tensor]:
        """The parameters and buffers, by name; a shared tensor appears once."""
        return {name: members[key] for name, (members, key) in self._homes.items()}

    def modes(self) -> tuple[bool, ...]:
        """Which modules are in ``train`` mode: a graph is of one choice."""
        return tuple(module.training for module in self._all)

    def forward(self, function: Callable[[], Any]) -> Any:
        return function()

    def run(self, tensors: dict[str, Tensor], function: Callable[[], Any]) -> Any:
        """Run ``function`` while the modules hold ``tensors`` in place of their own."""
        return functional_call(self, tensors, (function,))


class Numbers:
    """The Python numbers, flags and names among the attributes of some objects, which a graph holds as they were."""

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
            changed = [
                (name, new, old)
                for name, new, old in zip(self._names, now, self._held, strict=True)
                if new != old
            ]
            (owner, _, key), new, old = changed[0]
            raise ValueError(
                f"expected {owner}.{key} = {old!r}, which the compiled graph holds, got {new!r}: "
                "make it a tensor (register_buffer), or build what is compiled anew"
            )

    def hold(self) -> None:
        """Take them as they are now."""
        self._held = self._now()


@dataclass(frozen=True)
class Structure:
    """How the arguments of a call nest, as part of a key; torch 2.7's own ``TreeSpec`` has no hash."""

    spec: pytree.TreeSpec

    def __hash__(self) -> int:
        return hash(repr(self.spec))


class Graphs:
    """A function of lists of tensors, compiled for each shape of its data, ``MAX_GRAPHS`` of them at most."""

    def __init__(self) -> None:
        self._graphs: dict[Any, Callable[..., Any]] = {}

    def __call__(
        self,
        function: Callable[..., Any],
        fixed: Sequence[Tensor],
        data: Sequence[Tensor],
        key: Any = None,
    ) -> Any:
        """Run ``function(*fixed, *data)``: compiled where it may be, eagerly beyond ``MAX_GRAPHS``.

        ``fixed`` are tensors that live on from call to call, such as parameters; ``key`` is all else the graph depends on.
        """
        data = [x.contiguous() for x in data]  # a graph is compiled for one layout
        shapes = tuple((x.shape, x.dtype, x.device) for x in (fixed[0], *data))
        key = key, len(fixed), shapes
        if key not in self._graphs:
            if len(self._graphs) == MAX_GRAPHS:
                return function(*fixed, *data)
            compiled = compile_graph(function, [*fixed, *data])
            self._graphs[key] = (
                CudaGraph(compiled)
                if fixed[0].is_cuda
                else lambda fixed, data: compiled(*fixed, *data)
            )
        return self._graphs[key](fixed, data)


class GraphFunction:
    """A function of programs and data, without gradients, compiled with the programs' tensors as arguments."""

    def __init__(self, function: Callable[..., Any], *programs: Program) -> None:
        self.function = function
        self.modules = Modules(*programs)
        self._graphs = Graphs()

    def __call__(self, *arguments: Any) -> Any:
        """Return ``function(*arguments)``, a list of tensors; what is no tensor among the arguments is part of the graph.

        Raises ``ValueError`` where a number among the modules' attributes has changed since the last call.
        """
        self.modules.numbers.check()
        tensors = self.modules.tensors()
        leaves, spec = pytree.tree_flatten(arguments)

        def function(*inputs: Tensor) -> Any:
            take = iter(inputs)
            now = dict(zip(tensors, take, strict=False))
            arguments = pytree.tree_unflatten(
                [next(take) if isinstance(leaf, Tensor) else leaf for leaf in leaves], spec
            )
            with torch.no_grad(), isolated(validate=False):
                return self.modules.run(now, lambda: list(self.function(*arguments)))

        fixed = [value.detach() for value in tensors.values()]
        data = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        static = tuple(leaf for leaf in leaves if not isinstance(leaf, Tensor))
        result = self._graphs(
            function, fixed, data, (Structure(spec), static, self.modules.modes())
        )
        self.modules.numbers.hold()
        return result


class CudaGraph:
    """A compiled function recorded once on the GPU and replayed, so that a call costs its kernels and no launches."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.addresses: list[int] = []

    def __call__(self, fixed: Sequence[Tensor], data: Sequence[Tensor]) -> Any:
        addresses = [x.data_ptr() for x in fixed]
        if addresses != self.addresses:  # the first call, or the modules have moved
            self.addresses = addresses
            self._record(fixed, data)
        else:
            for static, value in zip(self.data, data, strict=True):
                static.copy_(value, non_blocking=True)
            self.graph.replay()
        return [value.clone() for value in self.outputs]

    def _record(self, fixed: Sequence[Tensor], data: Sequence[Tensor]) -> None:
        """Run the function for real once, then record it: its writes to ``fixed`` must happen once a call."""
        self.data = [x.clone() for x in data]
        saved = [x.clone() for x in fixed]
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(
                3
            ):  # warm up allocators and autotuning off the main stream, as capture demands
                self.function(*fixed, *self.data)
        torch.cuda.current_stream().wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.outputs = self.function(*fixed, *self.data)
        for x, value in zip(fixed, saved, strict=True):
            x.copy_(value)
        self.graph.replay()
