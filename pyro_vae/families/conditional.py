"""The base class of families: modules whose call returns a ``Distribution``.

``StandardNormal(2)()`` is p(z), ``Bernoulli(net)(z)`` is p(x | z), ``DiagonalNormal(net)(x)`` is
q(z | x). A class is named after its family, not after its role: one ``DiagonalNormal(net)`` serves
as q(z | x) or as p(z1 | z2). The family knows the event dimensions, so programs need not. Every
leading dimension of the parents is a batch dimension of the distribution.
"""

import inspect
from collections.abc import Callable
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from ..nets.precision import HALF

BINARY = frozenset({"static", "dynamic", "threshold"})


class Conditional(nn.Module):
    """A family whose parameters are a network's outputs.

    Shapes: parents are (..., features); values are (..., D), where the last ``event_dim``
    dimensions are one event.

    Several parents are joined: ``Bernoulli(net)(z, y)`` runs the network on (z, y), concatenated
    along the last dimension after their leading dimensions are broadcast. One parent goes to the
    network unchanged.

    ``Family.layout`` names the parts of the network's outputs, in order. ``Family.pixels`` names
    the kinds of pixels that the family is a density of: "static", "dynamic" and "threshold"
    (binary), "grey" (reals in [0, 1]), "counts" (0 to n) and "8bit" (0 to 255). A likelihood of
    other pixels is refused.

    Outputs of the network that are not finite are not changed, so that Pyro's validation of the
    distribution finds them.

    Raises ``ValueError`` for an ``event_dim`` below 1, for logits from a network that ends in a
    sigmoid or softmax, and for outputs of the wrong size; ``TypeError`` for a network that returns
    something other than one tensor.
    """

    pixels: ClassVar[frozenset[str]] = frozenset()
    layout: ClassVar[str] = "parameters"
    num_outputs: int | None = None  # the size of the network's outputs, where it is known

    def __init__(self, net: nn.Module, event_dim: int = 1) -> None:
        super().__init__()
        if event_dim < 1:
            raise ValueError(f"expected event_dim of at least 1, got {event_dim}")
        if self.layout == "logits":
            _refuse_probabilities(net)
        self.net = net
        self.event_dim = event_dim

    @classmethod
    def over(cls, net: Callable[[int], nn.Module], dim: int, **options: Any) -> Self:
        """Build the family of a variable of ``dim`` dimensions, with a network of the right size.

        ``net`` is a function: it takes the number of outputs and returns the network. ``options``
        are arguments of the family. For ``event_dim`` above 1, ``dim`` is the size of the first
        event dimension.

        >>> from pyro_vae import DiagonalNormal, LowRankNormal, mlp
        >>> q = DiagonalNormal.over(lambda outputs: mlp(784, 400, outputs), 20)
        >>> q(torch.rand(5, 784)).sample().shape
        torch.Size([5, 20])
        >>> q = LowRankNormal.over(lambda outputs: mlp(784, 400, outputs), 20, rank=3)
        >>> q.net[-1].out_features
        100

        Raises ``TypeError`` for any other ``net``, ``ValueError`` for a ``dim`` below 1.
        """
        known = inspect.signature(cls.outputs).parameters
        sizes = {name: value for name, value in options.items() if name in known}
        num_outputs = cls.outputs(at_least_one(dim=dim), **sizes)
        if "dim" in inspect.signature(cls).parameters:
            options["dim"] = dim
        family = cls(_network(net, num_outputs), **options)
        family.num_outputs = num_outputs
        return family

    @staticmethod
    def outputs(dim: int) -> int:
        """How many outputs the network must have for a variable of ``dim`` dimensions."""
        return dim

    def needs(self, dim: int) -> int:
        """How many outputs this family needs for ``dim`` dimensions, with its own options."""
        return self.outputs(dim)

    def parameter(self, *parents: Tensor) -> Tensor:
        """The network's outputs; half precision becomes float32, which densities need."""
        output: Tensor = self.net(_joined(parents))
        self._check(output)
        return output.float() if output.dtype in HALF else output

    def parameter_pair(self, *parents: Tensor) -> tuple[Tensor, Tensor]:
        """The two halves of the network's outputs, along the first event dimension."""
        output = self.parameter(*parents)
        if output.shape[-self.event_dim] % 2:
            raise ValueError(
                f"expected an even number of outputs, got {tuple(output.shape)}: "
                f"give the network {type(self).__name__}.outputs(dim)"
            )
        first, second = output.chunk(2, -self.event_dim)
        return first, second

    def checked_dim(self, dim: int, outputs: int) -> int:
        """Return ``dim``; raise ``ValueError`` unless it needs exactly ``outputs`` outputs."""
        if dim < 1 or self.needs(dim) != outputs:
            sizes = ", ".join(str(self.needs(d)) for d in (1, 2, 3))
            raise ValueError(
                f"expected as many outputs as {self._described()} needs ({sizes}, ...), "
                f"got {outputs}"
            )
        return dim

    def _check(self, output: Any) -> None:
        """Refuse anything but one tensor with as many outputs as the family needs."""
        if not isinstance(output, Tensor):
            raise TypeError(
                f"expected one tensor {self._source}, got {type(output).__name__}: join the parts "
                "by torch.cat(..., -1), or write a Pyro program with a distribution of your own"
            )
        shape = output.shape
        if len(shape) < self.event_dim:
            raise ValueError(
                f"expected at least {self.event_dim} dimensions {self._source}, got {tuple(shape)}"
            )
        if self.num_outputs is not None and shape[-self.event_dim] != self.num_outputs:
            raise ValueError(
                f"expected {self.num_outputs} outputs {self._source} in dimension "
                f"-{self.event_dim}, got shape {tuple(shape)}"
            )

    @property
    def _source(self) -> str:
        """What the network's outputs are, for messages."""
        return f"({self.layout}) from the network of {self._described()}"

    def _described(self) -> str:
        """The family's name, with its options in brackets."""
        options = self.extra_repr()
        return f"{type(self).__name__}({options})" if options else type(self).__name__


def at_least_one(**value: int) -> int:
    """Return the one value given; raise ``ValueError`` where it is below 1."""
    (name, number), *_ = value.items()
    if number < 1:
        raise ValueError(f"expected {name} of at least 1, got {number}")
    return number


def _network(net: Any, num_outputs: int) -> nn.Module:
    """Build the network, and refuse ``net`` if it is not a function that builds one."""
    built = None if isinstance(net, nn.Module) or not callable(net) else net(num_outputs)
    if not isinstance(built, nn.Module):
        wrong = type(net).__name__ if built is None else f"one that returns {type(built).__name__}"
        raise TypeError(f"expected a function (outputs: int) -> nn.Module, got {wrong}")
    return built


def _refuse_probabilities(net: nn.Module) -> None:
    """Refuse a network that ends in a sigmoid or softmax, because the family applies it itself."""
    last = list(net.modules())[-1] if isinstance(net, nn.Module) else None
    if isinstance(last, (nn.Sigmoid, nn.Softmax)):
        raise ValueError(
            f"expected logits, got a network whose last module is {type(last).__name__}: "
            "leave it out, the family applies it"
        )


def _joined(parents: tuple[Tensor, ...]) -> Tensor:
    """Return one parent as it is; broadcast and concatenate several."""
    if len(parents) == 1:
        return parents[0]
    if not parents or not all(isinstance(h, Tensor) and h.ndim for h in parents):
        got = [tuple(h.shape) if isinstance(h, Tensor) else type(h).__name__ for h in parents]
        raise TypeError(f"expected one parent, or several tensors (..., features), got {got}")
    if len({h.is_floating_point() for h in parents}) > 1:
        raise TypeError(
            f"expected parents that are all floating-point, got {[h.dtype for h in parents]}: "
            "encode a label by torch.nn.functional.one_hot(y, classes).float()"
        )
    try:
        leading = torch.broadcast_shapes(*(h.shape[:-1] for h in parents))
    except RuntimeError as error:
        shapes = [tuple(h.shape) for h in parents]
        raise ValueError(
            f"expected parents whose leading dimensions broadcast, got {shapes}"
        ) from error
    return torch.cat([h.expand(*leading, h.shape[-1]) for h in parents], -1)
