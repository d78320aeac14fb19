"""Matrix products on the CPU, each in the faster of two ways on this machine.

Torch calls MKL for float32. oneDNN is up to twice as fast on processors that are not Intel's, and
slower for some shapes and memory layouts elsewhere. Products of bfloat16 numbers take two to three
times as long as those of float32 on a processor without instructions for them; there the same
numbers are multiplied in float32, and the result is rounded. So each large product is timed once,
in milliseconds, and the choice is remembered. The results of both ways are equal to rounding.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

Library = Literal["torch", "onednn", "float32"]

WORTHWHILE = 1 << 23
"""The smallest number of multiplications for which another way may save more than it costs."""

MARGIN = 0.9
"""Another way is chosen where it takes less than this share of the time of torch's call."""

LARGEST = 1024
"""Products with more rows are timed with this many: a row then costs the same."""

aten: Any = torch.ops.aten

# our own operator, because TorchInductor uses oneDNN's only for constant weights
_library = torch.library.Library("pyro_vae", "DEF")
_library.define("mm(Tensor a, Tensor b, Tensor? bias=None) -> Tensor")
_library.impl(
    "mm",
    lambda a, b, bias=None: torch.ops.mkldnn._linear_pointwise.default(
        a, b.t(), bias, "none", [], ""
    ),
    "CPU",
)
_library.impl("mm", lambda a, b, bias=None: a.new_empty(a.shape[0], b.shape[1]), "Meta")

_choices: dict[str, Library] = {}
_fixed: list[Library] = []


@contextmanager
def products_by(library: Library) -> Iterator[None]:
    """Use "torch", "onednn" or "float32" for all products inside, without timing them.

    "onednn" concerns products of float32 numbers, "float32" those of bfloat16; all others are then
    torch's. Graphs that were compiled before keep their choice.

    Raises ``ValueError`` for another name.

    >>> from pyro_vae.nets import Linear
    >>> with products_by("torch"):
    ...     Linear(784, 400)(torch.zeros(128, 784)).shape
    torch.Size([128, 400])
    """
    if library not in get_args(Library):
        raise ValueError(f"expected one of {get_args(Library)}, got {library!r}")
    _fixed.append(library)
    try:
        yield
    finally:
        _fixed.pop()


def choices() -> dict[str, Library]:
    """The choices so far, by product: a checkpoint holds them, so that a resumed run repeats them.

    A key names the product, its sizes and the number of threads.
    """
    return dict(_choices)


def remember(made: Mapping[str, Library]) -> None:
    """Take choices that were made in another process."""
    _choices.update(made)


def faster(name: str, build: Callable[[], Mapping[Library, Callable[[], object]]]) -> Library:
    """The faster way for a product, or the one that was asked for.

    ``build`` returns the product by torch and in another way; it is called for a new ``name`` only.
    """
    if _fixed:
        return _fixed[-1]
    key = f"{name}, {torch.get_num_threads()} threads"
    if key not in _choices:
        with _disable_current_modes(), torch.no_grad(), torch.autocast("cpu", enabled=False):
            seconds = _seconds(build())
        best = min(seconds, key=lambda library: seconds[library])
        _choices[key] = best if seconds[best] < MARGIN * seconds["torch"] else "torch"
    return _choices[key]


def _seconds(
    calls: Mapping[Library, Callable[[], object]], repeats: int = 9
) -> dict[Library, float]:
    """The least time of each call; they alternate, so that all meet the same disturbances.

    A first call of each is not counted.
    """
    times: dict[Library, list[float]] = {library: [] for library in calls}
    for _ in range(1 + repeats):
        for library, call in calls.items():
            start = time.perf_counter()
            call()
            times[library].append(time.perf_counter() - start)
    return {library: min(each[1:]) for library, each in times.items()}


def applies(x: Tensor, dtype: torch.dtype | None = None) -> bool:
    """Whether products of this tensor, or of its numbers in another type, have another way."""
    if x.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    return (dtype or x.dtype) in (torch.float32, torch.bfloat16)


def large(rows: int, inner: int, columns: int) -> bool:
    """Whether a product is large enough for a choice to matter."""
    return rows * inner * columns >= WORTHWHILE


def _like(x: Tensor) -> Tensor:
    """A matrix of ones with the type, the size, at most ``LARGEST``, and the layout of ``x``."""
    rows, columns = (min(size, LARGEST) for size in x.shape)
    transposed = x.stride(0) < x.stride(1)
    ones = torch.ones(columns, rows).t() if transposed else torch.ones(rows, columns)
    return ones.to(x.dtype)


def _described(x: Tensor) -> str:
    sizes = "x".join(str(min(size, LARGEST)) for size in x.shape)
    return sizes + "'" * (x.stride(0) < x.stride(1))


def ways(a: Tensor, b: Tensor) -> dict[Library, Callable[[], Tensor]]:
    """A product by torch, and in the other way of its type."""
    if a.dtype == torch.float32:
        return {"torch": lambda: a @ b, "onednn": lambda: torch.ops.pyro_vae.mm(a, b)}
    return {"torch": lambda: a @ b, "float32": lambda: (a.float() @ b.float()).to(a.dtype)}


def kind(dtype: torch.dtype) -> str:
    """The part of a product's name that tells its type: nothing for float32."""
    return "" if dtype == torch.float32 else "bfloat16 "


def _faster_in_graph(a: Tensor, b: Tensor) -> Library:
    """The faster way for a product of a graph with these layouts."""
    if not (applies(a) and large(len(a), len(b), b.shape[1])):
        return "torch"
    name = f"{kind(a.dtype)}{_described(a)} {_described(b)}"
    return faster(name, lambda: ways(_like(a), _like(b)))


def _mm(a: Tensor, b: Tensor) -> Any:
    """A product of a graph in the other way, where that is faster."""
    library = _faster_in_graph(a, b)
    other = None if library == "torch" else ways(a, b).get(library)
    return NotImplemented if other is None else other()


def _addmm(bias: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Any:
    """A large product, to which the graph adds the bias together with what follows."""
    if not (alpha == beta == 1 and applies(a) and large(len(a), len(b), b.shape[1])):
        return NotImplemented
    if a.dtype == torch.float32:
        product = _mm(a, b)
        return bias + (aten.mm(a, b) if product is NotImplemented else product)
    if _faster_in_graph(a, b) != "float32":  # rounded once, after the bias, in each way
        return NotImplemented
    return (a.float() @ b.float() + bias.float()).to(a.dtype)


DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {aten.mm.default: _mm, aten.addmm.default: _addmm}
"""The replacements of torch's products in a compiled graph."""
