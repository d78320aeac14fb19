"""Normalising flows as families: z = loc + scale f(eps; context), eps ~ N(0, I), with (loc, 2 log scale, context) = net(h).

f is a chain of layers, each a module ``layer(z, context) -> (z', log|dz'/dz|)`` with an ``inverse`` of the same form. A draw
and its density are one pass; the density of other points inverts the chain. Without layers the family is ``DiagonalNormal``.
"""

import copy
import math
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Self, cast

import pyro.distributions as dist
import torch
import torch.nn.functional as F
from pyro.distributions import constraints
from torch import Tensor, nn

from ..nets.mlp import mlp
from .conditional import Conditional

_validate_args = torch.distributions.Distribution._validate_args
import zuko.flows  # noqa: E402  # importing zuko switches off the validation of every torch distribution
import zuko.transforms  # noqa: E402

torch.distributions.Distribution.set_default_validate_args(_validate_args)

Pass = tuple[Tensor, Tensor]  # a point and the log-determinant of the way there


class Flow(Conditional):
    """A family from layers of one's own; ``context`` is how much of the network's output they see.

    >>> layers = [PlanarLayer(3, context=4) for _ in range(2)]
    >>> Flow(nn.Linear(8, Flow.outputs(3, context=4)), 3, layers)(torch.ones(5, 8)).sample().shape
    torch.Size([5, 3])
    """

    def __init__(self, net: nn.Module, dim: int, layers: Iterable[nn.Module]) -> None:
        super().__init__(net)
        self.dim = dim
        self.layers = nn.ModuleList(layers)

    @staticmethod
    def outputs(dim: int, context: int = 16) -> int:
        return 2 * dim + context

    def forward(self, h: Tensor) -> dist.Distribution:
        loc, log_variance, context = self.parameter(h).tensor_split([self.dim, 2 * self.dim], -1)
        return FlowDistribution(loc, (0.5 * log_variance).exp(), context, tuple(self.layers))


class Planar(Flow):
    """Layers z + u tanh(w'z + b), with (u, w, b) linear in the context: cheap and weak.

    Source: Rezende & Mohamed, *Variational Inference with Normalizing Flows*, 2015, appendix A.
    """

    def __init__(self, net: nn.Module, dim: int, *, context: int = 16, depth: int = 8) -> None:
        super().__init__(net, dim, [PlanarLayer(dim, context) for _ in range(depth)])


class IAF(Flow):
    """Inverse autoregressive layers: each dimension is shifted and scaled given those before it, all in parallel.

    The density of a point that it did not draw takes D passes through each layer, one per dimension.

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
        super().__init__(
            net,
            dim,
            [AutoregressiveLayer(dim, context, hidden, reverse=bool(i % 2)) for i in range(depth)],
        )


class RealNVP(Flow):
    """Affine coupling layers: one half of the dimensions is shifted and scaled given the other; as fast both ways.

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
        super().__init__(net, dim, [CouplingLayer(dim, context, hidden) for _ in range(depth)])


class NeuralSpline(Flow):
    """Coupling layers of monotone rational-quadratic splines with ``bins`` bins on [-5, 5]; as fast both ways.

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
        super().__init__(
            net, dim, [CouplingLayer(dim, context, hidden, bins) for _ in range(depth)]
        )


class FlowDistribution(dist.TorchDistribution):  # type: ignore[misc]
    """The distribution of loc + scale f(eps; context), eps ~ N(0, I); it knows the density of its latest draw.

    The layers' own networks run in the parameters' precision, whatever autocast says: draw and density must match.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    support = constraints.real_vector
    has_rsample = True

    def __init__(
        self, loc: Tensor, scale: Tensor, context: Tensor, layers: tuple[nn.Module, ...]
    ) -> None:
        self.loc, self.scale, self.context, self.layers = loc, scale, context, layers
        self._drawn: tuple[Any, ...] = (None, None, False)
        super().__init__(loc.shape[:-1], loc.shape[-1:])

    def expand(self, batch_shape: Any, _instance: Any = None) -> Self:
        new = copy.copy(self)  # the parameters broadcast; the encoder's outputs are not repeated
        new._drawn = (None, None, False)
        new._batch_shape = torch.Size(batch_shape)
        return new

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        z = torch.randn(
            self._extended_shape(sample_shape), dtype=self.loc.dtype, device=self.loc.device
        )
        log_prob = _standard_normal(z)
        with torch.autocast(z.device.type, enabled=False):
            for layer in self.layers:
                z, log_det = layer(z, self.context.expand(*z.shape[:-1], -1))
                log_prob = log_prob - log_det
        z = self.loc + self.scale * z
        self._drawn = z, log_prob - self.scale.log().sum(-1), torch.is_grad_enabled()
        return z

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        z, log_prob, differentiable = self._drawn
        if value is z and (differentiable or not torch.is_grad_enabled()):
            return cast(Tensor, log_prob)
        z = (value - self.loc) / self.scale
        total = self.scale.log().sum(-1)
        with torch.autocast(z.device.type, enabled=False):
            for layer in reversed(self.layers):
                z, log_det = layer.inverse(z, self.context.expand(*z.shape[:-1], -1))  # type: ignore[operator]
                total = total + log_det
        return _standard_normal(z) - total


class PlanarLayer(nn.Module):
    """z' = z + u tanh(w'z + b), invertible because u'w > -1 by construction; inverted by bisection on w'z."""

    def __init__(self, dim: int, context: int) -> None:
        super().__init__()
        self.dim = dim
        self.net = nn.Linear(context, 2 * dim + 1)

    def forward(self, z: Tensor, context: Tensor) -> Pass:
        u, w, b, gain = self._planes(context)
        h = torch.tanh((w * z).sum(-1, keepdim=True) + b)
        return z + u * h, torch.log1p(gain * (1 - h.square())).squeeze(-1)

    def inverse(self, z: Tensor, context: Tensor) -> Pass:
        """Solve a + u'w tanh(a + b) = w'z' for a = w'z; the last step, Newton's, carries the gradient."""
        u, w, b, gain = self._planes(context)
        target = (w * z).sum(-1, keepdim=True)
        with torch.no_grad():
            low, high = target - gain.abs(), target + gain.abs()
            for _ in range(60):
                a = (low + high) / 2
                below = a + gain * torch.tanh(a + b) < target
                low, high = torch.where(below, a, low), torch.where(below, high, a)
            slope = 1 + gain * (1 - torch.tanh(a + b).square())
        h = torch.tanh(a - (a + gain * torch.tanh(a + b) - target) / slope + b)
        return z - u * h, torch.log1p(gain * (1 - h.square())).squeeze(-1)

    def _planes(self, context: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(u, w, b, u'w), with u moved along w so that u'w = softplus(.) - 0.999."""
        u, w, b = torch.split_with_sizes(self.net(context), [self.dim, self.dim, 1], -1)
        product = (w * u).sum(-1, keepdim=True)
        gain = F.softplus(product) - 0.999
        return u + (gain - product) * w / w.square().sum(-1, keepdim=True), w, b, gain


class AutoregressiveLayer(nn.Module):
    """z'_d = z_d exp(s_d) + m_d, with (m_d, s_d) from z_<d and the context; ``reverse`` orders the dimensions from the last."""

    def __init__(
        self, dim: int, context: int, hidden: Sequence[int], *, reverse: bool = False
    ) -> None:
        super().__init__()
        order = torch.arange(dim)
        self.net = zuko.flows.MaskedAutoregressiveTransform(
            dim, context, order=order.flip(0) if reverse else order, hidden_features=hidden
        )

    def forward(self, z: Tensor, context: Tensor) -> Pass:
        return cast(Pass, self.net(context).call_and_ladj(z))

    def inverse(self, z: Tensor, context: Tensor) -> Pass:
        transform = self.net(context)
        before = transform.inv(z)
        return before, transform.log_abs_det_jacobian(before, z)


class CouplingLayer(nn.Module):
    """One half of z transformed elementwise given the other half and the context, then the order of dimensions reversed.

    The transformation is affine, or with ``bins`` a monotone rational-quadratic spline.
    """

    def __init__(
        self, dim: int, context: int, hidden: Sequence[int], bins: int | None = None
    ) -> None:
        super().__init__()
        self.kept, self.moved = dim // 2, dim - dim // 2
        self.sizes = [1, 1] if bins is None else [bins, bins, bins - 1]
        self.net = mlp(self.kept + context, *hidden, self.moved * sum(self.sizes))

    def forward(self, z: Tensor, context: Tensor) -> Pass:
        kept, moved = torch.split_with_sizes(z, [self.kept, self.moved], -1)
        moved, log_det = self._transform(kept, context).call_and_ladj(moved)
        return torch.cat([kept, moved], -1).flip(-1), log_det.sum(-1)

    def inverse(self, z: Tensor, context: Tensor) -> Pass:
        kept, moved = torch.split_with_sizes(z.flip(-1), [self.kept, self.moved], -1)
        transform = self._transform(kept, context)
        before = transform.inv(moved)
        return torch.cat([kept, before], -1), transform.log_abs_det_jacobian(before, moved).sum(-1)

    def _transform(self, kept: Tensor, context: Tensor) -> Any:
        parameters = self.net(torch.cat([kept, context], -1)).unflatten(-1, (self.moved, -1))
        parameters = torch.split_with_sizes(parameters, self.sizes, -1)
        if len(self.sizes) == 3:
            return zuko.transforms.MonotonicRQSTransform(*parameters)
        return zuko.transforms.MonotonicAffineTransform(*(p.squeeze(-1) for p in parameters))


def _standard_normal(z: Tensor) -> Tensor:
    """log N(z; 0, I)."""
    return -0.5 * (z.square().sum(-1) + z.shape[-1] * math.log(2 * math.pi))


class FlowPrior(nn.Module):
    """z = f(eps), eps ~ N(0, I), through coupling layers: affine, or with ``bins`` rational-quadratic splines on [-5, 5].

    Source: Chen et al., *Variational Lossy Autoencoder*, 2017; Dinh et al. 2017; Durkan et al. 2019.

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
