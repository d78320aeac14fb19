"""Operations that a graph on the CPU calls as Python functions. Imported for graphs alone.

TorchInductor calls an operation for which it has no code through torch's dispatcher: its arguments
are boxed, and matched with a schema. Between large products, which take the caches, this costs 30
to 60 us. A Python function costs a few.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.compiler.config
from torch import Tensor
from torch._inductor.ir import FallbackKernel
from torch._inductor.select_algorithm import extern_kernels

from ..nets.products import onednn
from .replaced import replaced


def normal(like: Tensor, mean: float = 0.0, std: float = 1.0, *, generator: Any = None) -> Tensor:
    """The numbers of ``torch.Tensor.normal_``, in memory of their own."""
    return torch.empty_like(like).normal_(mean, std, generator=generator)


FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    "torch.ops.pyro_vae.mm.default": onednn,
    "torch.ops.aten.normal_functional.default": normal,
}
"""By the name with which a graph would call the operation."""

NAMES = {name: f"pyro_vae_{function.__name__}" for name, function in FUNCTIONS.items()}
"""By the same name: where graphs, also those on disk, find the function in ``extern_kernels``."""

for name, function in FUNCTIONS.items():
    setattr(extern_kernels, NAMES[name], function)


@contextmanager
def called_directly() -> Iterator[None]:
    """Call these functions in the graphs that this thread compiles inside.

    Such graphs are kept on disk apart from those of other versions, which have other functions.
    """
    config: Any = torch.compiler.config
    tag = f"{config.cache_key_tag} {sorted(NAMES.values())}"
    with replaced(FallbackKernel, "get_kernel_name", _name), config.patch(cache_key_tag=tag):
        yield


def _name(theirs: Callable[[Any], str], kernel: Any) -> str:
    name = theirs(kernel)
    return f"extern_kernels.{NAMES[name]}" if name in NAMES else name
