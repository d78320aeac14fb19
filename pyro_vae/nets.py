"""Networks. Every one maps ``(..., in)`` to ``(..., out)``, whatever the leading dimensions."""

import itertools

from torch import nn


def mlp(*sizes: int, activation: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    """A multilayer perceptron: ``mlp(784, 400, 40)`` has one hidden layer of 400 units."""
    layers: list[nn.Module] = []
    for size_in, size_out in itertools.pairwise(sizes):
        layers += [nn.Linear(size_in, size_out), activation()]
    return nn.Sequential(*layers[:-1])
