"""Inputs in units of their largest value."""

from torch import Tensor, nn


class Divide(nn.Module):
    """h -> h / divisor: pixels of any kind reach the encoder in [0, 1]."""

    def __init__(self, divisor: float) -> None:
        super().__init__()
        self.divisor = divisor

    def forward(self, h: Tensor) -> Tensor:
        return h / self.divisor
