"""The VampPrior: a mixture of the guide's own distributions at learned pseudo-inputs."""

import pyro.distributions as dist
import torch
from torch import Tensor, nn


class VampPrior(nn.Module):
    """1/J sum_j q(z | u_j): the guide's distributions at J learned pseudo-inputs u in [0, peak].

    ``pseudo_inputs`` (J, ...) are the initial values: a few data, or noise in [0, ``peak``]. Prior
    and guide share the ``encoder``. Its family must compute the density of any point: a Delta
    cannot, and an inverse autoregressive flow is slow at it.

    Source: Tomczak & Welling, *VAE with a VampPrior*, 2018.

    Raises ``ValueError`` for pseudo-inputs that are not floating-point, or outside [0, ``peak``].

    >>> from pyro_vae import DiagonalNormal, mlp
    >>> VampPrior(DiagonalNormal(mlp(64, 16, 4)), torch.rand(10, 64))().sample((3,)).shape
    torch.Size([3, 2])
    """

    def __init__(self, encoder: nn.Module, pseudo_inputs: Tensor, peak: float = 1.0) -> None:
        super().__init__()
        low, high = (float(value) for value in torch.aminmax(pseudo_inputs))
        if not pseudo_inputs.is_floating_point() or low < 0 or high > peak:
            raise ValueError(
                f"expected floating-point pseudo_inputs in [0, {peak:g}], "
                f"got {pseudo_inputs.dtype} in [{low:g}, {high:g}]"
            )
        self.encoder = encoder
        self.peak = peak
        self.raw = nn.Parameter(torch.logit((pseudo_inputs / peak).clamp(0.05, 0.95)))
        self.register_buffer("logits", torch.zeros(len(pseudo_inputs)))

    def forward(self) -> dist.Distribution:
        components = self.encoder(self.pseudo_inputs())
        return dist.MixtureSameFamily(dist.Categorical(logits=self.logits), components)

    def pseudo_inputs(self) -> Tensor:
        """u = peak sigmoid(raw)."""
        return self.peak * self.raw.sigmoid()
