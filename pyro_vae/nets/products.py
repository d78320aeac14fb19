"""Matrix products on the CPU, each in the fastest way on this machine.

Torch calls MKL for float32. oneDNN is up to twice as fast on processors that are not Intel's, and
slower for some shapes and memory layouts elsewhere. It is fastest where both matrices lie row by
row; a compiled graph copies them so, where this costs less than it saves. Products of bfloat16
numbers take two to 60 times as long as those of float32 on a processor without instructions for
them; there the same numbers are multiplied in float32, and the result is rounded.
"""

from collections.abc import Callable
from functools import cache
from typing import NamedTuple, cast

import torch
from torch import Tensor

from .timed import GRAPH, Way, chosen

ONEDNN = ("onednn", "rows")
"""The ways of float32 numbers that are not torch's: outside graphs they are the same."""

WORTHWHILE = {torch.float32: 1 << 23, torch.bfloat16: 1 << 15}
"""The smallest number of multiplications for which another way may save more than it costs."""

LARGEST = 1 << 29
"""The most multiplications that are timed, where there are more than ``ROWS`` columns."""

ROWS = 2048
"""More rows are timed as if they were this many: a row then costs the same."""

# our own operator, because TorchInductor uses oneDNN's only for constant weights
_library = torch.library.Library("pyro_vae", "DEF")
_library.define("mm(Tensor a, Tensor b, Tensor? bias=None) -> Tensor")
_library.impl("mm", lambda a, b, bias=None: onednn(a, b, bias), "CPU")
_library.impl("mm", lambda a, b, bias=None: a.new_empty(a.shape[0], b.shape[1]), "Meta")


def applies(x: Tensor, dtype: torch.dtype | None = None) -> bool:
    """Whether products of this tensor, or of its numbers in another type, have another way."""
    if x.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    return (dtype or x.dtype) in WORTHWHILE


def large(rows: int, inner: int, columns: int, dtype: torch.dtype = torch.float32) -> bool:
    """Whether a product is large enough for a choice to matter."""
    return rows * inner * columns >= WORTHWHILE[dtype]


class Layout(NamedTuple):
    """The size of a matrix, and whether it lies column by column."""

    rows: int
    columns: int
    transposed: bool = False

    @classmethod
    def of(cls, x: Tensor) -> "Layout":
        """The layout of a matrix; one that is expanded over its rows lies row by row."""
        rows, columns = x.shape
        return cls(rows, columns, 0 < x.stride(0) < x.stride(1))

    @property
    def t(self) -> "Layout":
        """That of the transposed matrix."""
        return Layout(self.columns, self.rows, not self.transposed)

    def __str__(self) -> str:
        return f"{self.rows}x{self.columns}" + "'" * self.transposed

    def ones(self, dtype: torch.dtype) -> Tensor:
        """A matrix of this size and layout."""
        rows, columns = (self.t if self.transposed else self)[:2]
        ones = torch.ones(rows, columns, dtype=dtype, device="cpu")
        return ones.t() if self.transposed else ones


def limited(a: Layout, b: Layout) -> tuple[Layout, Layout]:
    """Smaller matrices, whose product is timed in place of that of large ones.

    The columns of a wide layer stay, because a matrix that exceeds the caches has another fastest
    way.
    """
    rows, inner = min(a.rows, ROWS), min(a.columns, ROWS)
    columns = min(b.columns, max(LARGEST // max(rows * inner, 1), ROWS))
    return Layout(rows, inner, a.transposed), Layout(inner, columns, b.transposed)


def fastest(a: Layout, b: Layout, dtype: torch.dtype = torch.float32, graph: bool = False) -> Way:
    """The fastest way for the product of two matrices on the CPU.

    In a graph a matrix can be copied, so that it lies row by row. The graph's kernels transpose
    faster than torch, and write many copies together with other results. So we count the time of a
    copy that does not transpose.
    """
    if not large(a.rows, a.columns, b.columns, dtype):
        return "torch"

    a, b = limited(a, b)

    def build() -> dict[Way, Callable[[], object]]:
        x, y = a.ones(dtype), b.ones(dtype)
        calls: dict[Way, Callable[[], object]] = {**ways(x, y)}
        pair = row_by_row(x), row_by_row(y)
        copied = [v for v, layout in zip(pair, (a, b), strict=True) if layout.transposed]
        if graph and copied and dtype == torch.float32:
            calls["rows"] = lambda: [*(v.clone() for v in copied), onednn(*pair)]
        return calls

    return chosen(_name(a, b, dtype, graph, torch.get_num_threads()), build)


@cache
def _name(a: Layout, b: Layout, dtype: torch.dtype, graph: bool, threads: int) -> str:
    kind = "" if dtype == torch.float32 else "bfloat16 "
    return f"{GRAPH * graph}{kind}{a} {b}, {threads} threads"


def by_onednn(a: Layout, b: Layout) -> bool:
    """Whether oneDNN is the fastest way for a product of float32 numbers outside a graph."""
    return fastest(a, b) in ONEDNN


def row_by_row(x: Tensor) -> Tensor:
    """The matrix itself where it lies row by row, else a copy that does."""
    return x.clone(memory_format=torch.contiguous_format) if Layout.of(x).transposed else x


def onednn(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    """A product by oneDNN, plus a bias; in a graph as one operation of ours."""
    if type(a) is Tensor:
        dense = b.is_contiguous() or b.t().is_contiguous()
        weight = (b if dense else b.contiguous()).t()  # gaps between rows cost 1,000 times as much
        vector = None if bias is None else bias.contiguous()  # oneDNN would read it as if it were
        linear = torch.ops.mkldnn._linear_pointwise.default
        return cast(Tensor, linear(a, weight, vector, "none", [], ""))
    return cast(Tensor, torch.ops.pyro_vae.mm.default(a, b, bias))


def ways(a: Tensor, b: Tensor) -> dict[Way, Callable[[], Tensor]]:
    """A product by torch, and in the other way of its type."""
    if a.dtype == torch.float32:
        return {"torch": lambda: a @ b, "onednn": lambda: onednn(a, b)}
    return {"torch": lambda: a @ b, "float32": lambda: (a.float() @ b.float()).to(a.dtype)}
