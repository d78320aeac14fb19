"""Normalising flows: z = loc + scale f(eps; context), eps ~ N(0, I).

(loc, 2 log scale, context) = net(h), and f is a chain of layers from ``flow_layers``. One pass
gives a draw and its density. The density of any other point inverts the chain. Without layers the
family is ``DiagonalNormal``.
"""

import copy
import math
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Self

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor, nn

from .conditional import Conditional, at_least_one
from .flow_layers import AutoregressiveLayer, CouplingLayer, PlanarLayer

PART = 1 << 13
"""The draws that go through the layers together on the CPU, where no gradients are recorded and a
distribution draws several values: their tensors then stay in the caches."""


class Flow(Conditional):
    """z = loc + scale f(eps; context), eps ~ N(0, I), with f the chain of the given ``layers``.

    ``context`` is the number of the network's outputs that the layers receive; z is (..., D).

    Raises ``ValueError`` for outputs of the wrong size.

    >>> layers = [PlanarLayer(3, context=4) for _ in range(2)]
    >>> q = Flow.over(lambda outputs: nn.Linear(8, outputs), 3, context=4, layers=layers)
    >>> q(torch.ones(5, 8)).sample().shape
    torch.Size([5, 3])
    """

    layout = "loc, 2 log scale, context"

    def __init__(
        self,
        net: nn.Module,
        dim: int,
        layers: Iterable[nn.Module],
        *,
        context: int | None = None,
    ) -> None:
        super().__init__(net)
        self.dim = at_least_one(dim=dim)
        self.num_outputs = None if context is None else self.outputs(dim, context)
        self.layers = nn.ModuleList(layers)

    @staticmethod
    def outputs(dim: int, context: int = 16) -> int:
        return 2 * dim + context

    def forward(self, *parents: Tensor) -> dist.Distribution:
        output = self.parameter(*parents)
        if output.shape[-1] < 2 * self.dim:
            raise ValueError(
                f"expected at least {2 * self.dim} outputs ({self.layout}) from the network of "
                f"{type(self).__name__}, got shape {tuple(output.shape)}"
            )
        loc, log_variance, context = output.tensor_split([self.dim, 2 * self.dim], -1)
        return FlowDistribution(loc, (0.5 * log_variance).exp(), context, tuple(self.layers))


class Planar(Flow):
    """Layers z + u tanh(w'z + b), with (u, w, b) linear in the context: cheap, not very flexible.

    Shapes and errors are those of :class:`Flow`.

    Source: Rezende & Mohamed, *Variational Inference with Normalizing Flows*, 2015, appendix A.
    """

    def __init__(self, net: nn.Module, dim: int, *, context: int = 16, depth: int = 8) -> None:
        layers = [PlanarLayer(dim, context) for _ in range(depth)]
        super().__init__(net, dim, layers, context=context)


class IAF(Flow):
    """Inverse autoregressive layers: each dimension is shifted and scaled given those before it.

    A draw transforms all dimensions in parallel. The density of any other point takes D passes
    through each layer, one per dimension. Shapes and errors are those of :class:`Flow`.

    Source: Kingma et al., *Improving Variational Inference with Inverse Autoregressive Flow*, 2016.
    """

    def __init__(
        self,
        net: nn.Module,
        dim: int,
        *,
        context: int = 16,
        depth: int = 2,
        hidden: Sequence[int] = (64, 64),
    ) -> None:
        layers = [
            AutoregressiveLayer(dim, context, hidden, reverse=bool(i % 2)) for i in range(depth)
        ]
        super().__init__(net, dim, layers, context=context)


class RealNVP(Flow):
    """Affine coupling layers: one half of the dimensions is shifted and scaled given the other.

    A draw and the density of any point cost the same. Shapes and errors are those of :class:`Flow`.

    Source: Dinh, Sohl-Dickstein & Bengio, *Density Estimation Using Real NVP*, 2017.
    """

    def __init__(
        self,
        net: nn.Module,
        dim: int,
        *,
        context: int = 16,
        depth: int = 4,
        hidden: Sequence[int] = (64,),
    ) -> None:
        layers = [CouplingLayer(dim, context, hidden) for _ in range(depth)]
        super().__init__(net, dim, layers, context=context)


class NeuralSpline(Flow):
    """Coupling layers of monotone rational-quadratic splines with ``bins`` bins on [-5, 5].

    A draw and the density of any point cost the same. Shapes and errors are those of :class:`Flow`.

    Source: Durkan et al., *Neural Spline Flows*, 2019.
    """

    def __init__(
        self,
        net: nn.Module,
        dim: int,
        *,
        context: int = 16,
        depth: int = 4,
        hidden: Sequence[int] = (64,),
        bins: int = 8,
    ) -> None:
        layers = [CouplingLayer(dim, context, hidden, bins) for _ in range(depth)]
        super().__init__(net, dim, layers, context=context)


class FlowDistribution(dist.TorchDistribution):
    """The distribution of loc + scale f(eps; context), eps ~ N(0, I).

    It stores the log density of its latest draw, so ``log_prob`` of this draw needs no inversion.
    Autocast is off in the layers: their networks run in the precision of the parameters, so that
    draws and densities agree.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    support = constraints.real_vector
    has_rsample = True

    def __init__(
        self, loc: Tensor, scale: Tensor, context: Tensor, layers: tuple[nn.Module, ...]
    ) -> None:
        self.loc = loc
        self.scale = scale
        self.context = context
        self.layers = layers
        self._drawn: tuple[Any, ...] = (None, None, False)  # z, its log density, has a gradient
        super().__init__(loc.shape[:-1], loc.shape[-1:])

    def expand(self, batch_shape: Any, _instance: Any = None) -> Self:
        new = copy.copy(self)  # the parameters broadcast; the encoder's outputs are not repeated
        new._drawn = (None, None, False)
        new._batch_shape = torch.Size(batch_shape)
        return new

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        shape = self._extended_shape(sample_shape)
        eps = torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device)
        whole = not sample_shape or torch.is_grad_enabled() or eps.device.type != "cpu"
        rows = len(eps) if whole else max(PART // max(shape[1:-1].numel(), 1), 1)
        parts = [self._through_layers(part) for part in eps.split(rows)]
        z, log_prob = parts[0] if len(parts) == 1 else map(torch.cat, zip(*parts, strict=True))
        z = self.loc + self.scale * z
        self._drawn = z, log_prob - self.scale.log().sum(-1), torch.is_grad_enabled()
        return z

    def _through_layers(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """f(eps) and its log density."""
        log_prob = _standard_normal(z)
        with torch.autocast(z.device.type, enabled=False):
            for layer in self.layers:
                z, log_det = layer(z, self.context.expand(*z.shape[:-1], -1))
                log_prob = log_prob - log_det
        return z, log_prob

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        drawn, log_prob, differentiable = self._drawn
        if value is drawn and (differentiable or not torch.is_grad_enabled()):
            known: Tensor = log_prob
            return known
        z = (value - self.loc) / self.scale
        total = self.scale.log().sum(-1)
        with torch.autocast(z.device.type, enabled=False):
            for layer in reversed(self.layers):
                z, log_det = layer.inverse(z, self.context.expand(*z.shape[:-1], -1))  # type: ignore[operator]
                total = total + log_det
        return _standard_normal(z) - total


class FlowPrior(nn.Module):
    """z = f(eps), eps ~ N(0, I), with f a chain of ``depth`` coupling layers; z is (``dim``,).

    The layers are affine. With ``bins`` they are rational-quadratic splines on [-5, 5].

    Source: Chen et al., *Variational Lossy Autoencoder*, 2017; Dinh et al., 2017; Durkan et al.,
    2019.

    Raises ``ValueError`` for a ``dim`` below 2.

    >>> FlowPrior(2)().sample((3,)).shape
    torch.Size([3, 2])
    """

    loc: Tensor
    scale: Tensor

    def __init__(
        self, dim: int, *, depth: int = 4, hidden: Sequence[int] = (64,), bins: int | None = None
    ) -> None:
        super().__init__()
        if dim < 2:
            raise ValueError(f"expected at least 2 dimensions to couple, got {dim}")
        self.layers = nn.ModuleList(CouplingLayer(dim, 0, hidden, bins) for _ in range(depth))
        self.register_buffer("loc", torch.zeros(dim))
        self.register_buffer("scale", torch.ones(dim))

    def forward(self) -> dist.Distribution:
        return FlowDistribution(self.loc, self.scale, self.loc[:0], tuple(self.layers))


def _standard_normal(z: Tensor) -> Tensor:
    """log N(z; 0, I)."""
    return -0.5 * (z.square().sum(-1) + z.shape[-1] * math.log(2 * math.pi))
