"""Modules that scale the inputs of networks."""

from torch import Tensor, nn


class Divide(nn.Module):
    """h -> h / divisor, for any shape; it scales pixels of any kind to [0, 1]."""

    def __init__(self, divisor: float) -> None:
        super().__init__()
        self.divisor = divisor

    def forward(self, h: Tensor) -> Tensor:
        return h / self.divisor


class Log1p(nn.Module):
    """h -> log(1 + h), for counts h of any size and shape."""

    def forward(self, h: Tensor) -> Tensor:
        return h.log1p()


class Symmetric(nn.Module):
    """h -> 2 h / levels - 1: values from 0 to ``levels`` become values from -1 to 1."""

    def __init__(self, levels: int = 1) -> None:
        super().__init__()
        self.levels = levels

    def forward(self, h: Tensor) -> Tensor:
        return 2 * h / self.levels - 1
