"""The choices of a graph's products, kept on disk beside the compiled graphs.

A graph is made for one choice. Where two ways take nearly the same time, another process might
choose otherwise, find no graph on disk, and compile for seconds.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import get_args

import torch
from torch._inductor.runtime.cache_dir_utils import cache_dir

from ..nets.timed import GRAPH, Way, choices, remember
from .processor import processor


@contextmanager
def choices_kept() -> Iterator[None]:
    """Take the choices that other processes have kept, and keep those that are made inside.

    A choice that this process has already, perhaps from a checkpoint, stays as it is. A file that
    cannot be read is replaced, and one that cannot be written is left out: products are then timed
    again.
    """
    from torch._inductor.codecache import write_atomic  # slow to import, and for graphs alone

    path = _path()
    remember(_read(path) | choices())
    before = choices()
    yield
    made = {name: way for name, way in choices().items() if name not in before}
    new = {name: way for name, way in made.items() if name.startswith(GRAPH)}
    if new:
        with suppress(OSError):
            write_atomic(str(path), json.dumps(new | _read(path)))


def _path() -> Path:
    """The file of this processor and this version of torch, in TorchInductor's folder."""
    machine = f"{processor()} {torch.backends.cpu.get_cpu_capability()} {torch.__version__}"
    return Path(cache_dir()) / f"pyro_vae_products_{sha256(machine.encode()).hexdigest()[:16]}.json"


def _read(path: Path) -> dict[str, Way]:
    try:
        known = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    pairs = known.items() if isinstance(known, dict) else ()
    return {name: way for name, way in pairs if way in get_args(Way)}
