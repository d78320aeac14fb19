"""Dense layers whose large products use the faster library of this machine."""

from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .products import LARGEST, Library, applies, faster, large


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
    """``nn.Linear`` whose large products use the faster library of this machine.

    The layer is timed once for each number of rows, with its gradient where it is trained
    (:mod:`pyro_vae.nets.products`).

    >>> Linear(784, 400)(torch.zeros(3, 128, 784)).shape
    torch.Size([3, 128, 400])
    """

    def forward(self, input: Tensor) -> Tensor:
        if not self._by_onednn(input):
            return F.linear(input, self.weight, self.bias)
        rows = product(input.reshape(-1, self.in_features), self.weight, self.bias)
        return rows if input.ndim == 2 else rows.view(*input.shape[:-1], self.out_features)

    def _by_onednn(self, input: Tensor) -> bool:
        if torch.compiler.is_compiling() or type(input) is not Tensor:
            return False  # a compiler chooses itself; a graph of ours does so by product
        if input.ndim < 2 or not applies(input) or torch.is_autocast_enabled("cpu"):
            return False
        rows = input.numel() // self.in_features
        if not large(rows, self.in_features, self.out_features):
            return False
        trained = torch.is_grad_enabled()
        size = min(rows, LARGEST), self.in_features, self.out_features
        kind = "trained " * trained + "biased " * (self.bias is not None)
        name = f"{kind}layer {size[0]}x{size[1]}x{size[2]}"
        return faster(name, lambda: _layers(*size, trained, self.bias is not None)) == "onednn"


def _layers(
    rows: int, inner: int, columns: int, trained: bool, biased: bool
) -> dict[Library, Callable[[], object]]:
    """The products of a dense layer by each library: three where it is trained, else one."""
    a, b, grad = torch.ones(rows, inner), torch.ones(columns, inner), torch.ones(rows, columns)
    bias = torch.ones(columns) if biased else None
    pairs = [(grad, b), (grad.t(), a)] if trained else []
    return {
        "torch": lambda: [F.linear(a, b, bias), *(torch.mm(*pair) for pair in pairs)],
        "onednn": lambda: [
            torch.ops.pyro_vae.mm(a, b.t(), bias),
            *(torch.ops.pyro_vae.mm(*pair) for pair in pairs),
        ],
    }
