"""The one way in which programs are run without a change of Pyro's state.

Inside, modules own their parameters: ``pyro.module`` and ``pyro.param`` hand back what they were
given, and Pyro's parameter store and validation flags are afterwards as they were.
"""

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pyro
import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.nn.modules.module import register_module_forward_pre_hook

VALIDATING = pyro.distributions, pyro.infer, pyro.poutine
"""The parts of Pyro that validate, each with a flag of its own."""


class own_parameters(Messenger):
    """Modules use the parameters they own.

    With ``strict``, a ``pyro.param`` that no module owns raises ``ValueError``: nobody would
    train it.
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
                "expected every pyro.param to be an nn.Parameter of a module, "
                f"got {msg['name']!r}: SVI would not train it"
            )
        stored = msg["name"] in pyro.get_param_store()  # trained by Pyro's own SVI
        if isinstance(value, nn.Parameter) or (isinstance(value, Tensor) and not stored):
            msg.update(value=value, done=True, stop=True)


@contextmanager
def isolated(
    modules: Iterable[nn.Module], *, validate: bool | None = None, strict: bool = False
) -> Iterator[None]:
    """Run programs over modules and leave Pyro's store and flags as they were.

    Programs that Pyro's own ``SVI`` has trained find their parameters in the store. ``validate``
    None keeps Pyro's validation as it is.
    """
    store = pyro.get_param_store()
    state = store.get_state() if len(store) else None
    flags = [part.is_validation_enabled() for part in VALIDATING]
    torchs = Distribution._validate_args  # Pyro would set it as its own, which may differ
    silenced = _frozen_allowed() if _frozen(modules) else nullcontext()
    try:
        if validate is not None:
            pyro.enable_validation(validate)
        with own_parameters(strict), silenced:
            yield
    finally:
        if validate is not None:
            for part, enabled in zip(VALIDATING, flags, strict=True):
                part.enable_validation(enabled)
            Distribution.set_default_validate_args(torchs)
        store.clear()
        if state is not None:
            store.set_state(state)


@contextmanager
def _frozen_allowed() -> Iterator[None]:
    """Silence ``pyro.module``'s warning about frozen parameters: to freeze is no mistake here."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".* was not registered in the param store")
        yield


def _frozen(modules: Iterable[nn.Module]) -> bool:
    """Whether a parameter is frozen; ``module.parameters()`` takes twice as long."""
    rest: list[nn.Module | None] = list(modules)
    seen: set[nn.Module | None] = {None}
    while rest:
        module = rest.pop()
        if module is None or module in seen:
            continue
        seen.add(module)
        for p in module._parameters.values():
            if p is not None and not p.requires_grad:
                return True
        rest += module._modules.values()
    return False


@contextmanager
def in_mode(modules: Iterable[nn.Module], training: bool) -> Iterator[None]:
    """Run modules in ``train`` or ``eval`` mode, for ``eval`` those they call too; then restore.

    In ``train`` mode the modules that are called otherwise, such as a frozen network that prepares
    the data, keep their mode.
    """
    modes: dict[nn.Module, bool] = {}

    def switch(module: nn.Module, args: Any = None) -> None:
        modes.setdefault(module, module.training)
        if module.training != training:  # an assignment to a module is slow
            module.training = training

    for root in modules:
        root.apply(switch)
    called = nullcontext() if training else register_module_forward_pre_hook(switch)
    try:  # the hook finds modules that only a run shows
        with called:
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode


@contextmanager
def looking(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Run programs to look, not to learn: ``eval`` mode, no gradients, validation, isolation."""
    modules = list(modules)
    with in_mode(modules, False), torch.no_grad(), isolated(modules, validate=True):
        yield


@contextmanager
def unchanged(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Run programs and leave buffers and random numbers as they were."""
    buffers = [buffer for module in modules for buffer in module.buffers()]
    saved = [buffer.clone() for buffer in buffers]
    try:
        with torch.random.fork_rng(_cuda_devices(modules), device_type="cuda"):
            yield
    finally:
        with torch.no_grad():
            for buffer, value in zip(buffers, saved, strict=True):
                buffer.copy_(value)


def _cuda_devices(modules: Iterable[nn.Module]) -> list[int]:
    devices = {p.device for module in modules for p in module.parameters()}
    return sorted(device.index or 0 for device in devices if device.type == "cuda")
