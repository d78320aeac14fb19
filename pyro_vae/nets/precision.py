"""Networks that compute in bfloat16."""

import torch
from torch import Tensor, nn


class BFloat16(nn.Module):
    """A network that computes in bfloat16 and returns float32, which densities need.

    Weights, gradients and the optimiser stay in float32. Matrix products and convolutions read
    rounded copies of the weights.

    >>> from pyro_vae import mlp
    >>> BFloat16(mlp(4, 8, 2))(torch.ones(3, 4)).dtype
    torch.float32
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, input: Tensor) -> Tensor:
        with torch.autocast(input.device.type, torch.bfloat16, cache_enabled=False):
            output: Tensor = self.net(input)
        return output.float()
