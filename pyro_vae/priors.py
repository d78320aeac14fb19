"""Learned priors p(z): mixtures, pseudo-inputs, a flow."""

from collections.abc import Sequence

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from .flows import CouplingLayer, FlowDistribution


class MixturePrior(nn.Module):
    """sum_j pi_j N(loc_j, diag(scale_j^2)), all learned; at first ``components`` equal parts, their centres from N(0, I).

    >>> MixturePrior(2, components=5)().sample((3,)).shape
    torch.Size([3, 2])
    """

    def __init__(self, dim: int, components: int = 10) -> None:
        super().__init__()
        if dim < 1 or components < 1:
            raise ValueError(f"expected dim and components of at least 1, got {dim} and {components}")
        self.logits = nn.Parameter(torch.zeros(components))
        self.loc = nn.Parameter(torch.randn(components, dim))
        self.log_scale = nn.Parameter(torch.zeros(components, dim))

    def forward(self) -> dist.Distribution:
        return dist.MixtureSameFamily(dist.Categorical(logits=self.logits), dist.Normal(self.loc, self.log_scale.exp()).to_event(1))


class VampPrior(nn.Module):
    """1/J sum_j q(z | u_j): the guide's own family at J learned pseudo-inputs u in [0, peak].

    ``pseudo_inputs`` is (J, ...), where the search starts: a few data, or noise in [0, ``peak``]. The encoder is shared with the
    guide, whose family must know the density of any point (a Delta does not; an inverse autoregressive flow is slow at it).

    Source: Tomczak & Welling, *VAE with a VampPrior*, 2018.

    >>> from pyro_vae import DiagonalNormal, mlp
    >>> VampPrior(DiagonalNormal(mlp(64, 16, 4)), torch.rand(10, 64))().sample((3,)).shape
    torch.Size([3, 2])
    """

    def __init__(self, encoder: nn.Module, pseudo_inputs: Tensor, peak: float = 1.0) -> None:
        super().__init__()
        low, high = (float(value) for value in torch.aminmax(pseudo_inputs))
        if not pseudo_inputs.is_floating_point() or low < 0 or high > peak:
            raise ValueError(f"expected floating-point pseudo_inputs in [0, {peak:g}], got {pseudo_inputs.dtype} in [{low:g}, {high:g}]")
        self.encoder, self.peak = encoder, peak
        self.raw = nn.Parameter(torch.logit((pseudo_inputs / peak).clamp(0.05, 0.95)))
        self.register_buffer("logits", torch.zeros(len(pseudo_inputs)))

    def forward(self) -> dist.Distribution:
        return dist.MixtureSameFamily(dist.Categorical(logits=self.logits), self.encoder(self.pseudo_inputs()))

    def pseudo_inputs(self) -> Tensor:
        """u = peak sigmoid(raw)."""
        return self.peak * self.raw.sigmoid()


class FlowPrior(nn.Module):
    """z = f(eps), eps ~ N(0, I), through coupling layers: affine, or with ``bins`` rational-quadratic splines on [-5, 5].

    Source: Chen et al., *Variational Lossy Autoencoder*, 2017; Dinh et al. 2017; Durkan et al. 2019.

    >>> FlowPrior(2)().sample((3,)).shape
    torch.Size([3, 2])
    """

    loc: Tensor
    scale: Tensor

    def __init__(self, dim: int, *, depth: int = 4, hidden: Sequence[int] = (64,), bins: int | None = None) -> None:
        super().__init__()
        if dim < 2:
            raise ValueError(f"expected at least 2 dimensions to couple, got {dim}")
        self.layers = nn.ModuleList(CouplingLayer(dim, 0, hidden, bins) for _ in range(depth))
        self.register_buffer("loc", torch.zeros(dim))
        self.register_buffer("scale", torch.ones(dim))

    def forward(self) -> dist.Distribution:
        return FlowDistribution(self.loc, self.scale, self.loc[:0], tuple(self.layers))
