"""Data that are drawn again each time they are asked for."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class NormalDraws:
    """Data z ~ N(loc, diag(scale^2)), drawn again in each batch; both are (N, D).

    Latents q(z | x) of a trained VAE are such data, for a second model that is trained on them.

    >>> data = NormalDraws(torch.zeros(10, 2), torch.ones(10, 2))
    >>> len(data), data.batch(torch.tensor([0, 3, 3])).shape
    (10, torch.Size([3, 2]))

    Raises ``ValueError`` where the shapes differ.
    """

    loc: Tensor
    scale: Tensor

    def __post_init__(self) -> None:
        if self.loc.shape != self.scale.shape:
            raise ValueError(
                f"expected loc and scale of one shape, got {tuple(self.loc.shape)} and "
                f"{tuple(self.scale.shape)}"
            )

    def __len__(self) -> int:
        return len(self.loc)

    def batch(self, indices: Tensor) -> Tensor:
        """Return one draw for each of some data."""
        loc = self.loc[indices]
        return loc + self.scale[indices] * torch.randn_like(loc)
