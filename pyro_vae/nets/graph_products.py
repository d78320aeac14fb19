"""Matrix products of compiled graphs, each in the fastest way on this machine."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .products import Layout, applies, fastest, large, onednn, row_by_row, ways
from .timed import Way

aten: Any = torch.ops.aten


def _in_graph(a: Tensor, b: Tensor) -> Way:
    """The fastest way for a product of a graph."""
    return fastest(Layout.of(a), Layout.of(b), a.dtype, graph=True) if applies(a) else "torch"


def _mm(a: Tensor, b: Tensor) -> Any:
    """A product of a graph in another way, where that is faster."""
    library = _in_graph(a, b)
    if library == "rows" and a.dtype == torch.float32:
        return onednn(row_by_row(a), row_by_row(b))
    other = None if library == "torch" else ways(a, b).get(library)
    return NotImplemented if other is None else other()


def _addmm(bias: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Any:
    """A large product, to which the graph adds the bias together with what follows."""
    if not (alpha == beta == 1 and applies(a) and large(len(a), len(b), b.shape[1], a.dtype)):
        return NotImplemented
    if a.dtype == torch.float32:
        product = _mm(a, b)
        return bias + (aten.mm(a, b) if product is NotImplemented else product)
    if _in_graph(a, b) != "float32":  # rounded once, after the bias, in each way
        return NotImplemented
    return (a.float() @ b.float() + bias.float()).to(a.dtype)


DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {aten.mm.default: _mm, aten.addmm.default: _addmm}
"""The replacements of torch's products in a compiled graph."""
