"""The choices of products, kept on disk beside the compiled graphs.

A graph is made for one choice. Where two ways take nearly the same time, another process might
choose otherwise, find no graph on disk, and compile for seconds.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import get_args

import torch
from torch._inductor.runtime.cache_dir_utils import cache_dir

from ..nets.products import Library, choices, remember


@contextmanager
def choices_kept() -> Iterator[None]:
    """Take the choices that another process has kept, and keep those that are made inside.

    A choice of this process, or of the checkpoint that it continues, stays as it is. A file that
    cannot be read is replaced, and one that cannot be written is left out: products are then timed
    again.
    """
    path = _path()
    known = _read(path)
    remember(known | choices())
    yield
    if choices().items() <= known.items():
        return
    temporary = path.with_suffix(f".{os.getpid()}")
    try:
        temporary.write_text(json.dumps(choices() | _read(path)))
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)


def _path() -> Path:
    """The file of these instructions and this version of torch, in TorchInductor's folder."""
    name = f"pyro_vae_products {torch.backends.cpu.get_cpu_capability()} {torch.__version__}.json"
    return Path(cache_dir()) / name


def _read(path: Path) -> dict[str, Library]:
    try:
        known = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    pairs = known.items() if isinstance(known, dict) else ()
    return {name: way for name, way in pairs if way in get_args(Library)}
