"""Operations on the CPU, each in the fastest way on this machine.

What is fast differs between processors. So each way of an operation is timed once, and the choice
is remembered. All results are equal to rounding.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Literal, get_args

import torch
from torch.utils._python_dispatch import _disable_current_modes

Way = Literal["torch", "onednn", "rows", "float32", "series", "grouped"]

MARGIN = 0.9
"""Another way is chosen where it takes less than this share of the time of torch's call.

Smaller gains are lost in a step, where the caches are cold and our own code has to be called.
"""

GRAPH = "graph "
"""How the names of a graph's products begin."""

_choices: dict[str, Way] = {}
_fixed: list[Way] = []


@contextmanager
def products_by(way: Way) -> Iterator[None]:
    """Use one way inside for all operations that would be timed.

    "onednn" and "rows" are ways of products of float32 numbers, "float32" of those of bfloat16,
    "series" of log sigmoid, "grouped" of the log-density of vectors of binary pixels with
    gradients; all other operations are then torch's. "rows" is oneDNN, in graphs on copies that lie
    row by row. Graphs that were compiled before keep their choice.

    Raises ``ValueError`` for another name.

    >>> from pyro_vae.nets import Linear
    >>> with products_by("torch"):
    ...     Linear(784, 400)(torch.zeros(128, 784)).shape
    torch.Size([128, 400])
    """
    if way not in get_args(Way):
        raise ValueError(f"expected one of {get_args(Way)}, got {way!r}")
    _fixed.append(way)
    try:
        yield
    finally:
        _fixed.pop()


def choices() -> dict[str, Way]:
    """The choices so far, by operation, sizes and threads; checkpoints keep them for other runs."""
    return dict(_choices)


def remember(made: Mapping[str, Way]) -> None:
    """Take choices that were made in another process."""
    _choices.update(made)


def chosen(name: str, build: Callable[[], Mapping[Way, Callable[[], object]]]) -> Way:
    """The way that was chosen for an operation, or the one that was asked for.

    ``build`` returns it by torch and in other ways, which are timed for a new ``name``.
    """
    if _fixed:
        return _fixed[-1]
    if name not in _choices:
        with _alone():
            seconds = _seconds(build())
        best = min(seconds, key=lambda way: seconds[way])
        _choices[name] = best if seconds[best] < MARGIN * seconds["torch"] else "torch"
    return _choices[name]


@contextmanager
def _alone() -> Iterator[None]:
    """Nothing of a caller's modes, of its autocast or of its hooks for saved tensors is inside."""
    with (
        _disable_current_modes(),
        torch.inference_mode(False),
        torch.no_grad(),
        torch.autocast("cpu", enabled=False),
        torch.autograd.graph.saved_tensors_hooks(lambda x: x, lambda x: x),
    ):
        yield


def power_of_two(number: int) -> int:
    """The largest power of two that is not above a number: one timing serves many sizes."""
    return 1 << max(number, 1).bit_length() - 1


def _seconds(
    calls: Mapping[Way, Callable[[], object]], rounds: int = 3, seconds: float = 0.03
) -> dict[Way, float]:
    """The least time of each call; they alternate, so that all meet the same disturbances.

    There are at least so many rounds, and they take at least so many seconds. A first round is not
    counted.
    """
    times: dict[Way, list[float]] = {way: [] for way in calls}
    begin = time.perf_counter()
    done = 0
    while done <= rounds or time.perf_counter() < begin + seconds:
        for way, call in calls.items():
            start = time.perf_counter()
            call()
            times[way].append(time.perf_counter() - start)
        done += 1
    return {way: min(each[1:]) for way, each in times.items()}
