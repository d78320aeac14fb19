"""Dense layers whose large products are computed in the fastest way on this machine."""

import math
from collections.abc import Callable
from functools import cache
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .function import Function, differentiated
from .precision import in_float32, rounded_to
from .products import (
    ONEDNN,
    WORTHWHILE,
    Layout,
    applies,
    by_onednn,
    fastest,
    limited,
    onednn,
)
from .timed import Way, chosen


class Product(Function):
    """a b' + bias for matrices, and its gradients (g b, g' a, 1' g), each in its fastest way.

    Each gradient has the memory layout of its matrix. The bias is None, or a vector.
    """

    @staticmethod
    def forward(a: Tensor, b: Tensor, bias: Tensor | None) -> Tensor:
        if by_onednn(Layout.of(a), Layout.of(b).t):
            return onednn(a, b.t(), bias)
        return F.linear(a, b, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs[:2])
        ctx.save_for_forward(*inputs[:2])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        a, b = ctx.saved_tensors
        (grad,) = grads
        first, second, third = ctx.needs_input_grad
        grad_a = product(grad, b.t()) if first else None
        grad_b = product(grad.t(), a.t()) if second else None
        return grad_a, grad_b, grad.sum(0) if third else None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        a, b = ctx.saved_tensors
        of_a, of_b, of_bias = tangents
        terms = [F.linear(of_a, b)] if of_a is not None else []
        terms += [F.linear(a, of_b)] if of_b is not None else []
        terms += [of_bias.expand(len(a), -1)] if of_bias is not None else []
        return cast(Tensor, sum(terms))

    @staticmethod
    def vmap(info: Any, in_dims: Any, *inputs: Any) -> Any:
        """By torch's own layer, which knows batches."""
        return torch.vmap(F.linear, in_dims)(*inputs), 0


def product(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    """a b' + bias; without the autograd function where no derivatives are asked for.

    Transforms of ``torch.func`` need the function: it knows batches.
    """
    recorded = torch._C._are_functorch_transforms_active() or any(
        differentiated(x) for x in (a, b, bias) if x is not None
    )
    function: Any = Product.call if recorded else Product.forward
    return cast(Tensor, function(a, b, bias))


class Linear(nn.Linear):
    """``nn.Linear`` whose large products are computed in the fastest way on this machine.

    It is timed once for its sizes, with its gradient where it is trained
    (:mod:`pyro_vae.nets.products`). With bfloat16 numbers the output decides for the gradient too.

    >>> Linear(784, 400)(torch.zeros(3, 128, 784)).shape
    torch.Size([3, 128, 400])
    """

    def forward(self, input: Tensor) -> Tensor:
        return linear(input, self.weight, self.bias)


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A dense layer, input (..., in), weight (out, in), bias (out,): see :class:`Linear`."""
    dtype = None if torch.compiler.is_compiling() else _timed_type(input, weight)
    if dtype is None:  # a compiler chooses itself
        return F.linear(input, weight, bias)
    rows = input.shape[:-1].numel()
    transposed = input.ndim == 2 and Layout.of(input).transposed
    x, w = Layout(rows, weight.shape[1], transposed), Layout.of(weight)
    if dtype == torch.bfloat16:
        if fastest(x, w.t, dtype) == "float32":
            return in_float32(F.linear, input, weight, bias)
        return F.linear(input, weight, bias)
    if not _by_products(x, w, input.requires_grad, weight.requires_grad):
        return F.linear(input, weight, bias)
    result = product(input.reshape(rows, x.columns), weight, bias)
    return result if input.ndim == 2 else result.view(*input.shape[:-1], len(weight))


def _timed_type(input: Tensor, weight: Tensor) -> torch.dtype | None:
    """The type of the numbers that a layer multiplies, if it is large enough for a choice.

    None where the layer is torch's. A graph of ours chooses by product. Where the input is no row
    of the layer, or the types differ, torch says so. Most layers are small: the size comes early.
    """
    if type(input) is not Tensor or input.ndim < 2 or weight.ndim != 2:
        return None
    rounded = rounded_to(input, weight)
    dtype = rounded or input.dtype
    if input.numel() * weight.shape[0] < WORTHWHILE.get(dtype, math.inf):
        return None
    alike = rounded is not None or input.dtype == weight.dtype
    fits = alike and input.shape[-1] == weight.shape[1] and applies(input, dtype)
    return dtype if fits else None


def _by_products(x: Layout, weight: Layout, of_input: bool, of_weight: bool) -> bool:
    """Whether products in their own ways are faster than torch's layer.

    Where gradients are recorded, both are timed with the gradients that are asked for.
    """
    recorded = torch.is_grad_enabled() and (of_input or of_weight)
    if not recorded or torch._C._are_functorch_transforms_active():
        return by_onednn(x, weight.t)
    x, transposed = limited(x, weight.t)
    weight = transposed.t
    name = _name(x, weight, of_input, of_weight, torch.get_num_threads())
    return chosen(name, lambda: _trained(x, weight, of_input, of_weight)) in ONEDNN


@cache
def _name(x: Layout, weight: Layout, of_input: bool, of_weight: bool, threads: int) -> str:
    gradients = "of input " * of_input + "of weight " * of_weight
    return f"layer {x} {weight} gradients {gradients}, {threads} threads"


def _trained(
    x: Layout, weight: Layout, of_input: bool, of_weight: bool
) -> dict[Way, Callable[[], object]]:
    """A dense layer and its gradients, by torch and by products in their own ways."""
    dtype = torch.float32
    a = x.ones(dtype).requires_grad_(of_input)
    b = weight.ones(dtype).requires_grad_(of_weight)
    grad = Layout(len(a), len(b)).ones(dtype)

    def step(layer: Callable[[Tensor, Tensor], Tensor]) -> object:
        with torch.enable_grad():
            output = layer(a, b)
        return torch.autograd.grad(output, [v for v in (a, b) if v.requires_grad], grad)

    return {"torch": lambda: step(F.linear), "onednn": lambda: step(product)}
