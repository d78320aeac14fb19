"""What torch prepares for a graph and ours on the CPU do not need. Imported for graphs alone."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch._inductor import codecache
from torch._inductor.fx_passes import joint_graph

from .replaced import replaced


@contextmanager
def left_out() -> Iterator[None]:
    """Compile graphs without patterns and, on a machine without a GPU, without Triton's hash.

    Torch builds some patterns (0.4 s) before it asks whether ``pattern_matcher`` is on.
    """
    with replaced(joint_graph, "lazy_init", _no_patterns):
        _describe_system()
        yield


def _no_patterns(theirs: Callable[..., None], *args: Any, **kwargs: Any) -> None:
    if torch._inductor.config.pattern_matcher:
        theirs(*args, **kwargs)


def _describe_system() -> None:
    """Let torch describe the system, which it does once, for the keys of graphs.

    It reads Triton's library for its hash (0.4 s), and without CUDA drops the hash.
    """
    if not torch.cuda.is_available():
        with replaced(codecache, "triton_key", lambda theirs: None):
            codecache.CacheBase.get_system()
