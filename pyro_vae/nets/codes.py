"""Networks for images of codes: convolutions down to the codes and up again, a causal network."""

from torch import Tensor, nn

from .conv import Shape, check_shape
from .dense import Flat


def code_encoder(shape: Shape, dim: int, hidden: int = 64) -> Flat:
    """Convolutions that halve an image twice, to ``dim`` channels.

    (..., C H W) -> (..., ``dim`` H/4 W/4), flat, channels first.

    Raises ``ValueError`` for images below 4 x 4, or sides that 4 does not divide.

    >>> import torch
    >>> code_encoder((1, 28, 28), dim=16)(torch.rand(5, 784)).shape
    torch.Size([5, 784])
    """
    channels, *_ = _check(shape)
    return Flat(
        nn.Conv2d(channels, hidden // 2, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(hidden // 2, hidden, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(hidden, dim, 1),
        nn.BatchNorm2d(dim),
        shape=shape,
    )


def code_decoder(dim: int, shape: Shape, hidden: int = 64) -> nn.Sequential:
    """The mirror of :func:`code_encoder`: vectors (..., H/4 W/4, ``dim``) -> pixels (..., C H W).

    The errors are those of :func:`code_encoder`.
    """
    channels, height, width = _check(shape)
    convolutions = Flat(
        nn.Conv2d(dim, hidden, 3, padding=1),
        nn.ReLU(),
        nn.ConvTranspose2d(hidden, hidden // 2, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.ConvTranspose2d(hidden // 2, channels, 4, stride=2, padding=1),
        shape=(dim, height // 4, width // 4),
    )
    return nn.Sequential(ChannelsFirst(), convolutions)


class ChannelsFirst(nn.Module):
    """Vectors of positions (..., N, E) -> flat channels (..., E N)."""

    def forward(self, z: Tensor) -> Tensor:
        return z.mT.flatten(-2)


class RecurrentLogits(nn.Module):
    """A GRU: inputs (R, N, in) -> logits (R, N, out), each given the inputs up to its position.

    >>> import torch
    >>> RecurrentLogits(6, 16, 8)(torch.zeros(2, 4, 6)).shape
    torch.Size([2, 4, 8])
    """

    def __init__(self, size_in: int, hidden: int, size_out: int) -> None:
        super().__init__()
        self.gru = nn.GRU(size_in, hidden, batch_first=True)
        self.head = nn.Linear(hidden, size_out)

    def forward(self, h: Tensor) -> Tensor:
        states, _ = self.gru(h)
        logits: Tensor = self.head(states)
        return logits


def _check(shape: Shape) -> Shape:
    channels, height, width = check_shape(shape, least=4)
    if height % 4 or width % 4:
        raise ValueError(f"expected sides that 4 divides, got {height} x {width}")
    return channels, height, width
