"""Programs run without a change of Pyro's state or of the modules' modes."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import wraps
from typing import Any

import pyro
import torch
from pyro.nn import pyro_method
from pyro.poutine.messenger import Messenger
from pyro.poutine.runtime import _PYRO_STACK
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from .sites import Program


@contextmanager
def store_untouched() -> Iterator[None]:
    """Run programs on a copy of Pyro's store: called outside SVI too, an objective leaves the store as it was."""
    if own_parameters.entered():  # inside a step or a draw, which runs on a copy already
        yield
        return
    store = pyro.get_param_store()
    with store.scope(store.get_state()):
        yield


class own_parameters(Messenger):
    """Modules use the parameters they own: ``pyro.module`` and ``pyro.param`` hand back what they were given.

    With ``strict``, a ``pyro.param`` that no module owns raises ``ValueError``: nobody would train it.
    """

    def __init__(self, strict: bool = False) -> None:
        super().__init__()
        self.strict = strict

    def _pyro_param(self, msg: Any) -> None:
        if len(msg["args"]) < 2:
            return
        value = msg["args"][1]
        if self.strict and not isinstance(value, nn.Parameter):
            raise ValueError(
                f"expected every pyro.param to be an nn.Parameter of a module, got {msg['name']!r}: SVI would not train it"
            )
        stored = (
            msg["name"] in pyro.get_param_store()
        )  # a bare pyro.param that Pyro's own SVI has trained
        if isinstance(value, nn.Parameter) or (isinstance(value, Tensor) and not stored):
            msg.update(value=value, done=True, stop=True)

    @staticmethod
    def entered() -> bool:
        """Whether programs run inside now, without ``strict``."""
        return any(
            isinstance(handler, own_parameters) and not handler.strict for handler in _PYRO_STACK
        )


def program(method: Program) -> Program:
    """``pyro_method`` for a method that reads nothing of its ``PyroModule`` but submodules.

    Inside :class:`own_parameters`, where nobody listens, it does without the messages that register each of their
    parameters: a tenth of what the handlers cost.
    """
    registering: Program = pyro_method(method)

    @wraps(method)
    def run(*args: Any, **kwargs: Any) -> Any:
        return (method if own_parameters.entered() else registering)(*args, **kwargs)

    return run


@contextmanager
def isolated(
    *programs: Program, validate: bool, strict: bool = False, keep_store: bool = False
) -> Iterator[None]:
    """Run programs with Pyro's store and validation flags as they were before, afterwards.

    Inside, the store is empty, or with ``keep_store`` a copy (for programs that Pyro's own ``SVI`` has trained).
    """
    store = pyro.get_param_store()
    state = store.get_state() if keep_store else None
    with (
        store.scope(state),
        own_parameters(strict),
        pyro.validation_enabled(validate),
        frozen_allowed(*programs),
    ):
        yield


@contextmanager
def frozen_allowed(*programs: Program) -> Iterator[None]:
    """Silence ``pyro.module``'s warning about frozen parameters: to freeze is no mistake where modules own their parameters."""
    frozen = any(
        not p.requires_grad for module in modules_of(*programs) for p in module.parameters()
    )
    with warnings.catch_warnings() if frozen else nullcontext():
        if frozen:
            warnings.filterwarnings(
                "ignore",
                message=".* was not registered in the param store because requires_grad=False",
            )
        yield


def modules_of(*programs: Program) -> list[nn.Module]:
    """The modules behind programs that are modules, or methods of modules."""
    owners = [getattr(program, "__self__", program) for program in programs]
    return list(dict.fromkeys(owner for owner in owners if isinstance(owner, nn.Module)))


@contextmanager
def evaluation(*programs: Program) -> Iterator[None]:
    """Run programs to look, not to learn: no gradients, modules in ``eval`` mode, global state as it was, afterwards."""
    modes: dict[nn.Module, bool] = {}

    def look(module: nn.Module, args: Any = None) -> None:
        modes.setdefault(module, module.training)
        module.training = False

    for owner in modules_of(*programs):
        owner.apply(look)
    try:  # the hook finds the modules of programs that are plain functions
        with (
            register_module_forward_pre_hook(look),
            torch.no_grad(),
            isolated(*programs, validate=True, keep_store=True),
        ):
            yield
    finally:
        for module, training in modes.items():
            module.training = training


def reachable_modules(*programs: Any) -> list[nn.Module]:
    """The modules that programs are, belong to, close over or name, whether a call uses them or not."""
    found, seen, open_ = [], set(), list(programs)
    while open_:
        value = open_.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, nn.Module):
            found.append(value)
        elif isinstance(value, list | tuple | dict):
            open_ += value.values() if isinstance(value, dict) else value
        elif callable(value):
            cells = [
                cell.cell_contents
                for cell in getattr(value, "__closure__", None) or ()
                if _is_filled(cell)
            ]
            names, namespace = (
                getattr(getattr(value, "__code__", None), "co_names", ()),
                getattr(value, "__globals__", {}),
            )
            found += [
                namespace[name] for name in names if isinstance(namespace.get(name), nn.Module)
            ]
            open_ += [
                *cells,
                getattr(value, "__self__", None),
                getattr(value, "func", None),
                getattr(value, "args", None),
            ]
    return found


def _is_filled(cell: Any) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:  # a name that is not bound yet
        return False
