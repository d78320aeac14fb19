"""The scripts as functions, and small options for them."""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path

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


def script(name: str) -> Callable[[list[str]], None]:
    """The ``main`` of a script; call it with its arguments, which may be paths and numbers."""
    spec = importlib.util.spec_from_file_location(f"scripts_{name}", SCRIPTS / f"{name}.py")
    module = sys.modules[spec.name] = importlib.util.module_from_spec(
        spec
    )  # where tyro looks for its source
    spec.loader.exec_module(module)
    return lambda *args: module.main([str(arg) for arg in args])
