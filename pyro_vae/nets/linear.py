"""Dense layers whose large products are computed in the fastest way on this machine."""

from collections.abc import Iterator
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .log_sigmoid import differentiated
from .products import Layout, applies, by_onednn, fastest, large, onednn


class Product(torch.autograd.Function):
    """a b' + bias for matrices, and its gradients (g b, g' a, 1' g), each in its fastest way.

    Each gradient has the memory layout of its matrix. The bias is None, or a vector.
    """

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(a, b)
        ctx.save_for_forward(a, b)
        return _value(a, b, bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        a, b = ctx.saved_tensors
        (grad,) = grads
        first, second, third = ctx.needs_input_grad
        grad_a = product(grad, b.t()) if first else None
        grad_b = product(grad.t(), a.t()) if second else None
        return grad_a, grad_b, grad.sum(0) if third else None

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> Tensor:
        a, b = ctx.saved_tensors
        of_a, of_b, of_bias = tangents
        terms = [F.linear(of_a, b)] if of_a is not None else []
        terms += [F.linear(a, of_b)] if of_b is not None else []
        terms += [of_bias.expand(len(a), -1)] if of_bias is not None else []
        return torch.stack(terms).sum(0)


def product(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    """a b' + bias; without the autograd function where no derivatives are asked for."""
    recorded = any(differentiated(x) for x in (a, b, bias) if x is not None)
    function: Any = Product.apply if recorded else _value
    return cast(Tensor, function(a, b, bias))


def _value(a: Tensor, b: Tensor, bias: Tensor | None) -> Tensor:
    if by_onednn(Layout.of(a), Layout.of(b).t):
        return onednn(a, b.t(), bias)
    return F.linear(a, b, bias)


class Linear(nn.Linear):
    """``nn.Linear`` whose large products are computed in the fastest way on this machine.

    Each product, also of the gradient, is timed once for its sizes
    (:mod:`pyro_vae.nets.products`).

    >>> Linear(784, 400)(torch.zeros(3, 128, 784)).shape
    torch.Size([3, 128, 400])
    """

    def forward(self, input: Tensor) -> Tensor:
        dtype = self._dtype(input)
        if dtype is None or not self._chooses(input, dtype):
            return F.linear(input, self.weight, self.bias)
        rows = input.reshape(-1, self.in_features)
        if dtype == torch.bfloat16:
            if fastest(Layout.of(rows), self._weight.t, dtype) == "float32":
                return _in_float32(input, self.weight, self.bias)
        elif any(by_onednn(*factors) for factors in self._products(rows)):
            result = product(rows, self.weight, self.bias)
            return result if input.ndim == 2 else result.view(*input.shape[:-1], -1)
        return F.linear(input, self.weight, self.bias)

    def _dtype(self, input: Tensor) -> torch.dtype | None:
        """The type in which torch computes the layer; None where torch refuses the types."""
        types = {input.dtype, self.weight.dtype}
        if torch.is_autocast_enabled("cpu") and types <= {torch.float32, torch.bfloat16}:
            return torch.get_autocast_dtype("cpu")
        return input.dtype if len(types) == 1 else None

    def _chooses(self, input: Tensor, dtype: torch.dtype) -> bool:
        """Whether the layer is large and run by itself.

        A compiler chooses itself, and a graph of ours does so by product. Transforms such as
        ``vmap`` know torch's own layer.
        """
        if type(input) is not Tensor or input.ndim < 2 or torch.compiler.is_compiling():
            return False
        if not large(input.numel() // self.in_features, self.in_features, self.out_features):
            return False
        return applies(input, dtype) and not torch._C._are_functorch_transforms_active()

    @property
    def _weight(self) -> Layout:
        return Layout.of(self.weight)

    def _products(self, rows: Tensor) -> Iterator[tuple[Layout, Layout]]:
        """The factors of the layer's products: the output, and the gradients that are recorded."""
        x, weight = Layout.of(rows), self._weight
        yield x, weight.t
        if torch.is_grad_enabled():
            grad = Layout(x.rows, weight.rows)
            if rows.requires_grad:
                yield grad, weight
            if self.weight.requires_grad:
                yield grad.t, x


def _in_float32(input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A layer of bfloat16 numbers, multiplied in float32: exact up to the last rounding."""
    low = torch.bfloat16
    with torch.autocast("cpu", enabled=False):
        x, w, b = (None if v is None else v.to(low).float() for v in (input, weight, bias))
        return F.linear(cast(Tensor, x), cast(Tensor, w), b).to(low)
