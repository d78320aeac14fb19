"""A pair under test, and what its trusted values need to know about it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from .networks import PIXELS

ROWS = 4
Program = Callable[..., Any]


@dataclass(frozen=True)
class Subject:
    """Two programs with the arguments of a call, every one of which has one row per datum."""

    model: Program
    guide: Program
    args: tuple[Any, ...]
    modules: tuple[nn.Module, ...]
    copyable: bool = True
    """Whether the plain programs take copies of the rows, as many more data."""
    dim: int = -1
    """The dimension of the plate "data"."""
    enumerated: dict[str, Tensor] = field(default_factory=dict)
    """The values (C, *event) of the guide's site that is summed out."""
    mixture: dict[str, Tensor] = field(default_factory=dict)
    """The same, of a site that the model alone has."""
    evidence: Callable[[], Tensor] | None = None
    """log p(x) of each datum in closed form."""

    whole: Callable[[bool], None] | None = None
    """Lets a program that draws a subsample see all data, or again a part: the means agree."""

    def parameters(self) -> list[nn.Parameter]:
        """Every parameter, once."""
        return list(dict.fromkeys(p for module in self.modules for p in module.parameters()))

    def used(self) -> list[nn.Parameter]:
        """The parameters that are trained."""
        return [p for p in self.parameters() if p.requires_grad]

    def copies(self, number: int) -> tuple[Any, ...]:
        """The arguments with every datum several times."""
        return tuple(a.repeat(number, *[1] * (a.ndim - 1)) for a in self.args)

    def mode(self, training: bool) -> "Subject":
        """The same pair, its modules in one mode."""
        for module in self.modules:
            module.train(training)
        return self


def binary(*shape: int) -> Tensor:
    """Binary data, always the same."""
    generator = torch.Generator().manual_seed(0)
    return torch.rand(*shape, generator=generator, dtype=torch.float64).round()


def of(kind: Callable[[], nn.Module], *args: Tensor, **options: object) -> Subject:
    """A module with the methods ``model`` and ``guide``, seeded, in float64."""
    torch.manual_seed(0)
    module = kind().double()
    whole = getattr(module, "see_all", None)
    return Subject(
        *(module.model, module.guide, args or (binary(ROWS, PIXELS),), (module,)),
        whole=whole,
        **options,
    )
