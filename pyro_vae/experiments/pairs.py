"""Pairs of programs that users wrote by hand, named on the command line as ``module:function``."""

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ..programs.sites import Program


@dataclass(frozen=True)
class HandWritten:
    """Two programs, and the arguments of both: tensors whose first dimension counts the data."""

    name: str
    model: Program
    guide: Program
    args: tuple[Any, ...]

    def __len__(self) -> int:
        return next(len(value) for value in self.args if _has_rows(value))

    def first(self, count: int | None) -> "HandWritten":
        """The same pair on the first ``count`` data."""
        size = len(self)
        args = tuple(
            value[:count] if _has_rows(value) and len(value) == size else value
            for value in self.args
        )
        return HandWritten(self.name, self.model, self.guide, args)


@contextmanager
def load_pair(name: str) -> Iterator[HandWritten]:
    """Import ``module:function`` and call it: it returns ``model, guide, x``, or more arguments.

    The module is looked for in the working directory first, where the path stays while the
    context is open. Its code runs: names come from the command line, never from a file.

    Raises ``ValueError`` for another form, ``ImportError`` for a missing module or function,
    ``TypeError`` where the function returns something else.
    """
    module, _, function = name.partition(":")
    if not (module and function):
        raise ValueError(f"expected the folder of a run or module:function, got {name}")
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        yield _called(name, module, function)
    finally:
        if here in sys.path:
            sys.path.remove(here)


def _called(name: str, module: str, function: str) -> HandWritten:
    try:
        make = getattr(importlib.import_module(module), function)
    except ModuleNotFoundError as error:
        if error.name != module.split(".")[0] and error.name != module:
            raise
        raise ImportError(f"expected a module {module} in {Path.cwd()}, got none") from error
    except AttributeError as error:
        raise ImportError(f"expected a function {function} in {module}, got none") from error
    if not callable(make):
        raise TypeError(f"expected a function {function} in {module}, got {type(make).__name__}")
    returned = make()
    if not isinstance(returned, tuple) or len(returned) < 3 or not all(map(callable, returned[:2])):
        raise TypeError(
            f"expected {name} to return (model, guide, x), two programs and their data, "
            f"got {_shown(returned)}"
        )
    model, guide, *args = returned
    if not any(map(_has_rows, args)):
        raise TypeError(f"expected {name} to return a tensor of data, got {_shown(returned)}")
    return HandWritten(name, model, guide, tuple(args))


def _has_rows(value: Any) -> bool:
    return isinstance(value, Tensor) and value.ndim > 0


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(type(inner).__name__ for inner in value)})"
    return type(value).__name__
