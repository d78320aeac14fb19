"""The layers of normalising flows.

A layer is a module ``layer(z, context) -> (z', log|dz'/dz|)``; its ``inverse`` has the same form.
Shapes: z and z' are (..., D), the context is (..., C), the log-determinant is (...).
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..nets.dense import mlp
from ..nets.linear import linear
from .elementwise import unexpanded
from .spline import spline

_validate_args = torch.distributions.Distribution._validate_args
import zuko.flows  # noqa: E402  # the import switches off the validation of all distributions
import zuko.transforms  # noqa: E402

torch.distributions.Distribution.set_default_validate_args(_validate_args)

SLOPE = 1e-3
"""The least slope of a layer. It is fixed here because zuko's default changed from 1e-4 to 1e-3."""

Affine = partial(zuko.transforms.MonotonicAffineTransform, slope=SLOPE)
Spline = partial(zuko.transforms.MonotonicRQSTransform, slope=SLOPE)

Pass = tuple[Tensor, Tensor]
"""The transformed point, and the log-determinant of the Jacobian."""


class PlanarLayer(nn.Module):
    """z' = z + u tanh(w'z + b), with u'w > -1 by construction, so that it is invertible.

    The inverse is computed by bisection on w'z.
    """

    def __init__(self, dim: int, context: int) -> None:
        super().__init__()
        self.dim = dim
        self.net = nn.Linear(context, 2 * dim + 1)

    def forward(self, z: Tensor, context: Tensor) -> Pass:
        u, w, b, gain = self._planes(context)
        h = torch.tanh((w * z).sum(-1, keepdim=True) + b)
        return z + u * h, torch.log1p(gain * (1 - h.square())).squeeze(-1)

    def inverse(self, z: Tensor, context: Tensor) -> Pass:
        """Solve a + u'w tanh(a + b) = w'z' for a = w'z; a last Newton step carries the gradient."""
        u, w, b, gain = self._planes(context)
        target = (w * z).sum(-1, keepdim=True)
        with torch.no_grad():
            low = target - gain.abs()
            high = target + gain.abs()
            for _ in range(60):
                a = (low + high) / 2
                below = a + gain * torch.tanh(a + b) < target
                low = torch.where(below, a, low)
                high = torch.where(below, high, a)
            slope = 1 + gain * (1 - torch.tanh(a + b).square())
        h = torch.tanh(a - (a + gain * torch.tanh(a + b) - target) / slope + b)
        return z - u * h, torch.log1p(gain * (1 - h.square())).squeeze(-1)

    def _planes(self, context: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return u, w, b and u'w; u is changed along w so that u'w = softplus(.) - 0.999."""
        u, w, b = torch.split_with_sizes(self.net(context), [self.dim, self.dim, 1], -1)
        product = (w * u).sum(-1, keepdim=True)
        gain = F.softplus(product) - 0.999
        return u + (gain - product) * w / w.square().sum(-1, keepdim=True), w, b, gain


class AutoregressiveLayer(nn.Module):
    """z'_d = z_d exp(s_d) + m_d, with (m_d, s_d) from z_<d and the context.

    ``reverse`` orders the dimensions from the last to the first. The weights are masked once in a
    pass, and the first layer sees the context of each datum once, however many draws z are given.
    """

    def __init__(
        self, dim: int, context: int, hidden: Sequence[int], *, reverse: bool = False
    ) -> None:
        super().__init__()
        order = torch.arange(dim)
        self.net = zuko.flows.MaskedAutoregressiveTransform(
            dim,
            context,
            order=order.flip(0) if reverse else order,
            univariate=Affine,
            hidden_features=hidden,
        )

    def forward(self, z: Tensor, context: Tensor) -> Pass:
        if z.shape[-1] == 1:  # there is no z_<d: the network of the context has no masks
            image: Pass = self.net(context).call_and_ladj(z)
            return image
        shift, log_scale = self._conditioner(z, context)(z)
        return torch.addcmul(shift, z, log_scale.exp()), log_scale.sum(-1)

    def inverse(self, z: Tensor, context: Tensor) -> Pass:
        """D passes: the first d dimensions are right after d of them."""
        if z.shape[-1] == 1:
            transform = self.net(context)
            before = transform.inv(z)
            return before, transform.log_abs_det_jacobian(before, z)
        conditioner = self._conditioner(z, context)
        before = torch.zeros_like(z)
        for _ in range(z.shape[-1]):
            shift, log_scale = conditioner(before)
            before = (z - shift) / log_scale.exp()
        return before, log_scale.sum(-1)

    def _conditioner(self, z: Tensor, context: Tensor) -> Callable[[Tensor], Pass]:
        """The function z -> (m, s) for one context."""
        dim = z.shape[-1]
        first, *rest = (
            (cast(Tensor, layer.mask) * layer.weight, layer.bias)
            for layer in self.net.hyper
            if isinstance(layer, nn.Linear)
        )
        weight = first[0][:, :dim]
        of_context = F.linear(unexpanded(context), first[0][:, dim:], first[1])

        def parameters(z: Tensor) -> Pass:
            h = linear(z, weight) + of_context
            for weights in rest:
                h = linear(F.relu_(h), *weights)
            shift, scale = h.unflatten(-1, (dim, 2)).unbind(-1)
            return shift, _squashed(scale)

        return parameters


class CouplingLayer(nn.Module):
    """Transform one half of z given the other half and the context; then reverse z.

    The transform is elementwise: affine, or with ``bins`` a monotone rational-quadratic spline.
    """

    def __init__(
        self, dim: int, context: int, hidden: Sequence[int], bins: int | None = None
    ) -> None:
        super().__init__()
        self.kept = dim // 2
        self.moved = dim - self.kept
        self.bins = bins or 0
        self.sizes = [1, 1] if bins is None else [bins, bins, bins - 1]
        self.net = mlp(self.kept + context, *hidden, self.moved * sum(self.sizes))

    def forward(self, z: Tensor, context: Tensor) -> Pass:
        kept, moved = torch.split_with_sizes(z, [self.kept, self.moved], -1)
        if self.bins > 1 and not torch.is_grad_enabled():
            moved, log_det = self._fast_spline(kept, context, moved)
        else:
            moved, log_det = self._transform(kept, context).call_and_ladj(moved)
        return torch.cat([kept, moved], -1).flip(-1), log_det.sum(-1)

    def inverse(self, z: Tensor, context: Tensor) -> Pass:
        kept, moved = torch.split_with_sizes(z.flip(-1), [self.kept, self.moved], -1)
        transform = self._transform(kept, context)
        before = transform.inv(moved)
        return torch.cat([kept, before], -1), transform.log_abs_det_jacobian(before, moved).sum(-1)

    def _fast_spline(self, kept: Tensor, context: Tensor, moved: Tensor) -> Pass:
        """The spline with the points innermost: the last layer's outputs in the order (P, D, N)."""
        *hidden, last = cast(Any, self.net)
        h = torch.cat([kept, context], -1)
        h = h.reshape(-1, h.shape[-1])
        for layer in hidden:
            h = layer(h)
        sizes = self.moved, sum(self.sizes)
        weight, bias = (w.unflatten(0, sizes).transpose(0, 1) for w in (last.weight, last.bias))
        outputs = torch.addmm(bias.reshape(-1, 1), weight.flatten(0, 1), h.t())
        points = moved.reshape(-1, self.moved).t().contiguous()
        image, log_slope = spline(points, outputs.view(sizes[1], *points.shape), self.bins, SLOPE)
        return image.t().reshape(moved.shape), log_slope.t().reshape(moved.shape)

    def _transform(self, kept: Tensor, context: Tensor) -> Any:
        parameters = self.net(torch.cat([kept, context], -1)).unflatten(-1, (self.moved, -1))
        parameters = torch.split_with_sizes(parameters, self.sizes, -1)
        if self.bins:
            return Spline(*parameters)
        return Affine(*(p.squeeze(-1) for p in parameters))


def _squashed(scale: Tensor) -> Tensor:
    """The log scale of zuko's affine transform, whose size is below -log ``SLOPE``."""
    return scale / (1 + (scale / math.log(SLOPE)).abs())
