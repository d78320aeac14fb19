"""The modules behind programs: found where a program holds them, and by running it."""

import functools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from pyro.nn import PyroModule, pyro_method
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

from .sites import Program


def modules_of(*programs: Program) -> list[nn.Module]:
    """The modules that programs are, are methods of, or refer to.

    A plain function refers to the modules in its closure, its defaults and its global names.
    """
    found: dict[nn.Module, None] = {}
    seen: set[int] = set()
    for program in programs:
        for module in _reached(program, seen):
            found[module] = None
    return roots(found)


def roots(modules: Iterable[nn.Module]) -> list[nn.Module]:
    """The modules that are no part of another one among them, each once."""
    modules = list(dict.fromkeys(modules))
    inner = {child for module in modules for child in module.modules() if child is not module}
    return [module for module in modules if module not in inner]


def _reached(value: Any, seen: set[int]) -> Iterator[nn.Module]:
    """Yield the modules that a program, or what it refers to, leads to."""
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, nn.Module):
        yield value
        for program in vars(value).values():  # a model kept as a plain attribute
            if callable(program) and not isinstance(program, type):
                yield from _reached(program, seen)
    elif isinstance(value, functools.partial):
        for part in (value.func, *value.args, *value.keywords.values()):
            yield from _reached(part, seen)
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _reached(part, seen)
    elif isinstance(value, dict):
        yield from _reached(list(value.values()), seen)
    elif callable(value) and not isinstance(value, type):
        for part in _references(value):
            yield from _reached(part, seen)


def _references(function: Any) -> Iterator[Any]:
    """Yield what a method or function refers to."""
    owner = getattr(function, "__self__", None)
    if isinstance(owner, nn.Module):
        yield owner
        return
    if owner is not None:
        yield from getattr(owner, "__dict__", {}).values()
    function = getattr(function, "__func__", function)
    yield getattr(function, "__wrapped__", None)
    for cell in getattr(function, "__closure__", None) or ():
        try:
            yield cell.cell_contents
        except ValueError:  # a name that is not bound yet
            continue
    yield from getattr(function, "__defaults__", None) or ()
    yield from (getattr(function, "__kwdefaults__", None) or {}).values()
    code = getattr(function, "__code__", None)
    names = () if code is None else code.co_names
    scope = getattr(function, "__globals__", {})
    for name in names:
        value = scope.get(name)
        if isinstance(value, (nn.Module, functools.partial)) or _is_local(value, function):
            yield value


def _is_local(value: Any, function: Any) -> bool:
    """Whether a global name is a function of the program's own file, which may hold modules."""
    return callable(value) and getattr(value, "__module__", None) == function.__module__


@contextmanager
def called() -> Iterator[list[nn.Module]]:
    """Record the modules that are called inside, in order."""
    modules: dict[nn.Module, None] = {}
    with register_module_forward_pre_hook(lambda module, _: modules.setdefault(module)):
        result: list[nn.Module] = []
        yield result
        result += modules


def without_registration(program: Program) -> Program:
    """A ``pyro_method`` without the messages that register each parameter of its module.

    Where parameters are not collected, these messages are useless, and a tenth of the time of an
    eager step. A module with Pyro's own
    attributes (``PyroParam``, ``PyroSample``) needs them, and keeps its method as it is.
    """
    owner = getattr(program, "__self__", None)
    function: Any = getattr(program, "__func__", None)
    if not isinstance(owner, PyroModule) or getattr(function, "__code__", None) is not _CODE:
        return program
    for module in owner.modules():
        if isinstance(module, PyroModule) and (module._pyro_params or module._pyro_samples):
            return program
    bound: Program = function.__wrapped__.__get__(owner)
    return bound


_CODE = pyro_method(modules_of).__code__  # of every method that pyro_method has made
