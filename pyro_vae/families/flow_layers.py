"""The layers of normalising flows.

A layer is a module ``layer(z, context) -> (z', log|dz'/dz|)``; its ``inverse`` has the same form.
Shapes: z and z' are (..., D), the context is (..., C), the log-determinant is (...).
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..nets.dense import mlp

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

    ``reverse`` orders the dimensions from the last to the first.
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
        image: Pass = self.net(context).call_and_ladj(z)
        return image

    def inverse(self, z: Tensor, context: Tensor) -> Pass:
        transform = self.net(context)
        before = transform.inv(z)
        return before, transform.log_abs_det_jacobian(before, z)


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
            return Spline(*parameters)
        return Affine(*(p.squeeze(-1) for p in parameters))
