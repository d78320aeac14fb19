"""Networks that compute in bfloat16."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

LAYERS = frozenset(
    {
        F.linear,
        F.conv1d,
        F.conv2d,
        F.conv3d,
        F.conv_transpose1d,
        F.conv_transpose2d,
        F.conv_transpose3d,
        torch.matmul,
        torch.mm,
        torch.bmm,
        torch.addmm,
        torch.baddbmm,
        Tensor.matmul,
        Tensor.__matmul__,
    }
)
"""What takes most of the time of a network."""

KERNELS = torch.backends.mkldnn.is_available() and bool(
    torch.ops.mkldnn._is_mkldnn_bf16_supported()
)
"""Whether torch has kernels for bfloat16 numbers on this processor."""

HALF = (torch.bfloat16, torch.float16)
"""Types whose numbers are too coarse for densities."""

ROUNDED = (torch.float32, torch.bfloat16)
"""The types that autocast rounds to bfloat16."""


class BFloat16(nn.Module):
    """A network that computes in bfloat16 and returns float32, which densities need.

    Weights, gradients and the optimiser stay in float32. Matrix products and convolutions read
    rounded copies of the weights. On a processor for which torch has no kernels of bfloat16, dense
    layers, products and convolutions are computed in float32 from the same rounded numbers. There
    ``torch.utils.checkpoint`` cannot recompute layers inside the network; put it around the whole.

    >>> from pyro_vae import mlp
    >>> BFloat16(mlp(4, 8, 2))(torch.ones(3, 4)).dtype
    torch.float32
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, input: Tensor) -> Tensor:
        low = torch.autocast(input.device.type, torch.bfloat16, cache_enabled=False)
        with low, nullcontext() if has_kernels(input.device.type) else InFloat32():
            output: Tensor = self.net(input)
        return output.float()


def has_kernels(device: str) -> bool:
    """Whether torch has fast kernels for bfloat16 numbers, which on the CPU need AVX-512."""
    return device != "cpu" or KERNELS


class InFloat32(TorchFunctionMode):
    """Runs the ``LAYERS`` whose numbers autocast rounds by :func:`in_float32`, on the CPU.

    Torch's own loops for bfloat16 numbers take 5 to 60 times as long (on an AMD EPYC of the
    generation Zen 3).
    """

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        options = kwargs or {}
        if func in LAYERS and "out" not in options:
            tensors = [value for value in (*args, *options.values()) if isinstance(value, Tensor)]
            if rounded_to(*tensors) == torch.bfloat16:
                return in_float32(func, *args, **options)
        return func(*args, **options)


def rounded_to(*tensors: Tensor) -> torch.dtype | None:
    """The type to which autocast rounds tensors on the CPU; None where it leaves them alone."""
    low = torch.is_autocast_enabled("cpu") and all(x.dtype in ROUNDED for x in tensors)
    return torch.get_autocast_dtype("cpu") if low else None


def in_float32(function: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
    """A layer of bfloat16 numbers, computed in float32: exact up to the last rounding."""

    def rounded(value: Any) -> Any:
        return value.bfloat16().float() if isinstance(value, Tensor) else value

    with torch.autocast("cpu", enabled=False):
        options = {name: rounded(value) for name, value in kwargs.items()}
        return function(*map(rounded, args), **options).bfloat16()
