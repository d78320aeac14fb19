"""The scripts as functions, small options for them, and graphs without the compiler."""

import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from unittest.mock import patch

SCRIPTS = Path(__file__).parent.parent / "scripts"
TINY = [
    "--max-images",
    "60",
    "--hidden",
    "16",
    "--latent-dim",
    "2",
    "--num-samples",
    "10",
    "--device",
    "cpu",
    "--no-progress",
]


def module(name: str) -> ModuleType:
    """A script as a module."""
    spec = importlib.util.spec_from_file_location(f"scripts_{name}", SCRIPTS / f"{name}.py")
    made = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = made  # where tyro looks for its source
    spec.loader.exec_module(made)
    return made


def script(name: str) -> Callable[[list[str]], None]:
    """The ``main`` of a script; call it with its arguments, which may be paths and numbers."""
    main = module(name).main
    return lambda *args: main([str(arg) for arg in args])


@contextmanager
def traced() -> Iterator[None]:
    """Run a traced graph operation by operation, in place of the compiler, which takes seconds."""
    import torch._inductor

    with patch.object(torch._inductor, "compile", lambda graph, inputs: graph):
        yield
