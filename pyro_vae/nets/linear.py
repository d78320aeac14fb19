"""Matrix products on the CPU through oneDNN.

Torch sends float32 products to MKL, which is slow on processors that are not Intel's. oneDNN runs
at full speed on all of them and takes any strides. On other devices, and for other types, torch's
own products run.
"""

from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WORTHWHILE = 1 << 23
"""The smallest number of multiplications for which oneDNN saves more time than its call costs."""

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


def applies(x: Tensor) -> bool:
    """Whether oneDNN can compute products of this tensor."""
    return (
        x.device.type == "cpu" and x.dtype == torch.float32 and torch.backends.mkldnn.is_available()
    )


class Product(torch.autograd.Function):
    """a b' + bias for matrices, and its gradients (g b, g' a, 1' g) by the same products.

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
    """``nn.Linear`` with its large products through oneDNN.

    On processors that are not Intel's it is up to twice as fast.

    >>> Linear(784, 400)(torch.zeros(3, 128, 784)).shape
    torch.Size([3, 128, 400])
    """

    def forward(self, input: Tensor) -> Tensor:
        large = input.numel() * self.out_features >= WORTHWHILE
        if not (large and applies(input) and input.ndim > 1) or torch.is_autocast_enabled("cpu"):
            return F.linear(input, self.weight, self.bias)
        rows = product(input.reshape(-1, self.in_features), self.weight, self.bias)
        return rows.view(*input.shape[:-1], self.out_features)


def _mm(a: Tensor, b: Tensor) -> Tensor:
    large = a.numel() * b.shape[1] >= WORTHWHILE
    return torch.ops.pyro_vae.mm(a, b) if large and applies(a) else NotImplemented


def _addmm(bias: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    product = _mm(a, b) if alpha == beta == 1 else NotImplemented
    return product if product is NotImplemented else bias + product


DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {aten.mm.default: _mm, aten.addmm.default: _addmm}
"""The replacements of torch's products in a compiled graph."""
