"""Functions with a gradient of their own, and where one is needed."""

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.autograd.forward_ad import unpack_dual


class Function(torch.autograd.Function):
    """An autograd function with ``setup_context``, that is called in a third of the time.

    Torch binds the arguments of such a function anew at each call (35 us more, on an AMD EPYC of
    the generation Zen 3). Only ``torch.func`` and compilers need ``setup_context``. So elsewhere
    :meth:`call` takes a twin without it, made once from the methods of the class. Rules for vmap
    stay with the class, for they belong to ``torch.func``.

    >>> class Cube(Function):
    ...     @staticmethod
    ...     def forward(x):
    ...         return x**3
    ...
    ...     @staticmethod
    ...     def setup_context(ctx, inputs, output):
    ...         ctx.save_for_backward(*inputs)
    ...
    ...     @staticmethod
    ...     def backward(ctx, grad):
    ...         (x,) = ctx.saved_tensors
    ...         return 3 * x**2 * grad
    >>> x = torch.tensor(2.0, requires_grad=True)
    >>> Cube.call(x).backward()
    >>> x.grad
    tensor(12.)
    """

    _twin: ClassVar[Any]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()

        def forward(ctx: Any, *inputs: Any) -> Any:
            output = cls.forward(*inputs)
            cls.setup_context(ctx, inputs, output)
            return output

        methods = {"forward": forward, "backward": cls.backward, "jvp": cls.jvp}
        static = {name: staticmethod(method) for name, method in methods.items()}
        metaclass: Any = type(cls)
        cls._twin = metaclass(cls.__name__, (torch.autograd.Function,), static)

    @classmethod
    def call(cls, *inputs: Any) -> Any:
        """The output of ``forward``, whose gradient is that of ``backward``."""
        return (cls if transformed() else cls._twin).apply(*inputs)


def transformed() -> bool:
    """Whether ``torch.func`` or torch's compiler takes the operations."""
    return torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()


def at_once(x: Tensor) -> bool:
    """Whether each operation on a tensor is only computed when it is called, and not traced."""
    return type(x) is Tensor and not transformed() and not torch._C._get_tracing_state()


def differentiated(x: Tensor) -> bool:
    """Whether gradients are recorded, or derivatives in forward mode."""
    return torch.is_grad_enabled() or unpack_dual(x).tangent is not None
