"""Conditional distributions: modules whose call returns a ``Distribution``.

``StandardNormal(2)()`` is p(z), ``Bernoulli(net)(z)`` is p(x | z), ``DiagonalNormal(net)(x)`` is q(z | x). They are named
after the family, not the role: one ``DiagonalNormal(net)`` serves as q(z | x) or as p(z1 | z2). The event dimensions live
in here, never in a program, and every leading dimension of the input is a batch dimension of the distribution.

``Family.outputs(dim)`` is the number of outputs that a network must have for a variable of ``dim`` dimensions.
``Family.pixels`` names the kinds of pixels that the family is a density of, so that a likelihood on other data is refused:
"static", "dynamic" and "threshold" (binary), "grey" (reals in [0, 1]), "counts" (0 to n) and "8bit" (0 to 255).
"""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

BINARY = frozenset({"static", "dynamic", "threshold"})


class Conditional(nn.Module):
    """A family whose parameters are a network's outputs; the last ``event_dim`` dimensions are one event.

    Non-finite outputs of the network are not repaired: they reach the density, and validation.
    """

    pixels: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, net: nn.Module, event_dim: int = 1) -> None:
        super().__init__()
        if event_dim < 1:
            raise ValueError(f"expected event_dim of at least 1, got {event_dim}")
        self.net = net
        self.event_dim = event_dim

    @staticmethod
    def outputs(dim: int) -> int:
        """How many outputs the network must have for a variable of ``dim`` dimensions."""
        return dim

    def parameter(self, h: Tensor) -> Tensor:
        """The network's outputs; in float32 where it ran in half precision, for densities need more digits."""
        output: Tensor = self.net(h)
        return output.float() if output.dtype in (torch.bfloat16, torch.float16) else output

    def parameter_pair(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """The two halves of the network's outputs, along the first event dimension."""
        output = self.parameter(h)
        if output.shape[-self.event_dim] % 2:
            raise ValueError(
                f"expected an even number of outputs, got {tuple(output.shape)}: give the network {type(self).__name__}.outputs(dim)"
            )
        first, second = output.chunk(2, -self.event_dim)
        return first, second


def solve_outputs(outputs: int, needed: Any, family: str) -> int:
    """The dimension D for which a family needs this many outputs of its network."""
    dim = next(d for d in range(outputs + 1) if needed(d + 1) > outputs)
    if dim < 1 or needed(dim) != outputs:
        raise ValueError(
            f"expected as many outputs as {family} needs ({needed(1)}, {needed(2)}, {needed(3)}, ...), got {outputs}"
        )
    return dim


def at_least_one(**value: int) -> int:
    """Return the one value given; raise ``ValueError`` where it is below 1."""
    (name, number), *_ = value.items()
    if number < 1:
        raise ValueError(f"expected {name} of at least 1, got {number}")
    return number
