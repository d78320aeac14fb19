"""Dense layers whose large products are computed in the faster way on this machine."""

from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .products import LARGEST, Library, applies, faster, kind, large, ways


class Product(torch.autograd.Function):
    """a b' + bias for matrices, and its gradients (g b, g' a, 1' g), all by oneDNN.

    Each gradient has the memory layout of its matrix. The bias is None, or a vector.
    """

    @staticmethod
    def forward(a: Tensor, b: Tensor, bias: Tensor | None) -> Tensor:
        return cast(Tensor, torch.ops.pyro_vae.mm.default(a, b.t(), bias))

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs[:2])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        a, b = ctx.saved_tensors
        (grad,) = grads
        first, second, third = ctx.needs_input_grad
        grad_a = product(grad, b.t()) if first else None
        grad_b = product(grad.t(), a.t()) if second else None
        return grad_a, grad_b, grad.sum(0) if third else None


def product(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    """a b' + bias; without the autograd function where gradients are not recorded."""
    function = Product.apply if torch.is_grad_enabled() else Product.forward
    return cast(Tensor, function(a, b, bias))


class Linear(nn.Linear):
    """``nn.Linear`` whose large products are computed in the faster way on this machine.

    The layer is timed once for each number of rows, with its gradient where it is trained
    (:mod:`pyro_vae.nets.products`).

    >>> Linear(784, 400)(torch.zeros(3, 128, 784)).shape
    torch.Size([3, 128, 400])
    """

    def forward(self, input: Tensor) -> Tensor:
        dtype = self._dtype(input)
        library = self._library(input, dtype) if dtype else "torch"
        if library == "float32" and dtype == torch.bfloat16:
            return _in_float32(input, self.weight, self.bias)
        if library != "onednn" or dtype != torch.float32:
            return F.linear(input, self.weight, self.bias)
        rows = product(input.reshape(-1, self.in_features), self.weight, self.bias)
        return rows if input.ndim == 2 else rows.view(*input.shape[:-1], self.out_features)

    def _dtype(self, input: Tensor) -> torch.dtype | None:
        """The type in which torch computes the layer; None where torch refuses the types."""
        types = {input.dtype, self.weight.dtype}
        if torch.is_autocast_enabled("cpu") and types <= {torch.float32, torch.bfloat16}:
            return torch.get_autocast_dtype("cpu")
        return input.dtype if len(types) == 1 else None

    def _library(self, input: Tensor, dtype: torch.dtype) -> Library:
        """The faster way; a compiler chooses itself, and a graph of ours does so by product."""
        if torch.compiler.is_compiling() or type(input) is not Tensor or input.ndim < 2:
            return "torch"
        rows = input.numel() // self.in_features
        if not (large(rows, self.in_features, self.out_features) and applies(input, dtype)):
            return "torch"
        trained, biased = torch.is_grad_enabled(), self.bias is not None
        size = min(rows, LARGEST), self.in_features, self.out_features
        name = f"{kind(dtype)}{'trained ' * trained}{'biased ' * biased}layer "
        name += "x".join(map(str, size))
        return faster(name, lambda: _layers(*size, trained, biased, dtype))


def _in_float32(input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A layer of bfloat16 numbers, multiplied in float32: exact up to the last rounding."""
    low = torch.bfloat16
    with torch.autocast("cpu", enabled=False):
        x, w, b = (None if v is None else v.to(low).float() for v in (input, weight, bias))
        return F.linear(cast(Tensor, x), cast(Tensor, w), b).to(low)


def _layers(
    rows: int, inner: int, columns: int, trained: bool, biased: bool, dtype: torch.dtype
) -> dict[Library, Callable[[], object]]:
    """The products of a dense layer in each way: three where it is trained, else one."""
    shapes = (rows, inner), (columns, inner), (rows, columns), (columns,)
    a, b, grad, ones = (torch.ones(*shape, dtype=dtype) for shape in shapes)
    bias = ones if biased else None
    backward = [ways(grad, b), ways(grad.t(), a)] if trained else []
    other: Library = "onednn" if dtype == torch.float32 else "float32"

    def in_other_way() -> Tensor:
        if dtype == torch.float32:
            return cast(Tensor, torch.ops.pyro_vae.mm(a, b.t(), bias))
        return _in_float32(a, b, bias)

    return {
        "torch": lambda: [F.linear(a, b, bias), *(way["torch"]() for way in backward)],
        other: lambda: [in_other_way(), *(way[other]() for way in backward)],
    }
