"""Networks as users write them: none takes a dimension that it was not written for."""

import torch
from torch import Tensor, nn

SIDE, PIXELS, LATENT, CLASSES, STEPS = 4, 6, 2, 3, 4


def net(size_in: int, size_out: int) -> nn.Sequential:
    """A small network, with a hidden layer."""
    return nn.Sequential(nn.Linear(size_in, 8), nn.Tanh(), nn.Linear(8, size_out))


class Gaussian(nn.Module):
    """Rows (N, D) only -> (loc, scale), as in Pyro's examples."""

    def __init__(self, size_in: int, size_out: int = LATENT, norm: bool = False) -> None:
        super().__init__()
        self.body = nn.Linear(size_in, 8)
        self.norm = nn.BatchNorm1d(8) if norm else nn.Identity()
        self.loc, self.log_scale = nn.Linear(8, size_out), nn.Linear(8, size_out)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        (_, _) = x.shape  # fails for other numbers of dimensions
        h = torch.tanh(self.norm(self.body(x)))
        return self.loc(h), self.log_scale(h).exp()


class ConvEncoder(nn.Module):
    """Images (N, 1, H, W) only -> (loc, scale)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3, padding=1)
        self.head = Gaussian(3 * SIDE * SIDE)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        (rows, _, _, _) = x.shape
        return self.head(torch.tanh(self.conv(x)).view(rows, -1))


class ConvDecoder(nn.Module):
    """Rows (N, D) only -> logits (N, 1, H, W)."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(LATENT, 2 * (SIDE // 2) ** 2)
        self.conv = nn.ConvTranspose2d(2, 1, 2, stride=2)

    def forward(self, z: Tensor) -> Tensor:
        (rows, _) = z.shape
        return self.conv(torch.tanh(self.linear(z)).view(rows, 2, SIDE // 2, SIDE // 2))


class SequenceEncoder(nn.Module):
    """Sequences (N, T, D) with lengths (N,) -> (loc, scale), from the GRU's state at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(2, 6, batch_first=True)
        self.head = Gaussian(6)

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        states, _ = self.gru(x)
        return self.head(states[torch.arange(len(x)), lengths - 1])


class SequenceDecoder(nn.Module):
    """Rows (N, D) -> logits (N, T, D), step by step."""

    def __init__(self) -> None:
        super().__init__()
        self.gru, self.head = nn.GRU(LATENT, 6, batch_first=True), nn.Linear(6, 2)

    def forward(self, z: Tensor) -> Tensor:
        states, _ = self.gru(z.unsqueeze(1).repeat(1, STEPS, 1))
        return self.head(states)
