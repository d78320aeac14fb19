"""A specification as a pair of programs: its text, run."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from .source import program
from .spec import Spec

Program = Callable[..., Any]


@dataclass(frozen=True)
class Pair:
    """A model, a guide, the call, and the evidence where it is known."""

    spec: Spec
    source: str
    model: Program
    guide: Program
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    parameters: list[Tensor]
    truth: Tensor | None

    def copies(self, num: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The call with every datum ``num`` times, the whole batch again and again."""

        def repeat(value: Tensor) -> Tensor:
            return value.repeat(num, *[1] * (value.ndim - 1))

        return tuple(map(repeat, self.args)), {
            name: repeat(value) for name, value in self.kwargs.items()
        }

    def rows(self, start: int, stop: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The call with some of the data."""
        return tuple(value[start:stop] for value in self.args), {
            name: value[start:stop] for name, value in self.kwargs.items()
        }


def build(spec: Spec) -> Pair:
    """Run the text of a specification, with the global random state as it was, afterwards."""
    source = program(spec)
    names: dict[str, Any] = {}
    with torch.random.fork_rng():
        exec(compile(source, f"<program {spec.seed}>", "exec"), names)
    parameters = list(names["nets"].parameters())
    return Pair(
        spec,
        source,
        names["model"],
        names["guide"],
        names["args"],
        names["kwargs"],
        parameters,
        names["truth"],
    )


def plain(spec: Spec, **changes: Any) -> Pair:
    """The same densities in Pyro's simplest style: the pair that references are computed with."""
    return build(replace(spec, style="closure", **changes))
