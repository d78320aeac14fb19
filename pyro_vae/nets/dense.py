"""Multilayer perceptrons, and the wrapper that lets any network take flat inputs.

Every network maps ``(..., in)`` to ``(..., out)`` for any leading dimensions. Images are flat
vectors ``(..., C * H * W)``; a network that needs their ``shape`` (C, H, W) has an argument for it.
"""

import itertools
import math

import torch
from torch import Tensor, nn

from .linear import Linear


class Flat(nn.Sequential):
    """Layers on one batch of inputs of a fixed ``shape``, called on flat inputs.

    (..., prod(shape)) -> (N, *shape) -> layers -> (N, ...) -> (..., out)

    Raises ``ValueError`` for an input of another size.

    >>> Flat(nn.Conv2d(1, 4, 3), shape=(1, 8, 8))(torch.zeros(2, 3, 64)).shape
    torch.Size([2, 3, 144])
    """

    def __init__(self, *layers: nn.Module, shape: tuple[int, ...]) -> None:
        super().__init__(*layers)
        self.shape = shape
        self.size = math.prod(shape)

    def forward(self, input: Tensor) -> Tensor:
        if input.shape[-1] != self.size:
            raise ValueError(f"expected input (..., {self.size}), got {tuple(input.shape)}")
        # a view of the same shape would cost time, in each gradient too
        same = input.ndim == 2 and len(self.shape) == 1
        output = input if same else input.reshape(-1, *self.shape)
        for layer in self:
            output = layer(output)
        output = output.flatten(1)
        shape = *input.shape[:-1], output.shape[-1]
        return output if output.shape == shape else output.reshape(shape)


def mlp(*sizes: int, activation: type[nn.Module] = nn.ReLU) -> Flat:
    """A multilayer perceptron: ``mlp(784, 400, 40)`` has one hidden layer of 400 units.

    ``activation`` follows every layer except the last. (..., sizes[0]) -> (..., sizes[-1]).

    Raises ``ValueError`` for fewer than two sizes, or one below 1.

    >>> mlp(784, 400, 40)(torch.rand(5, 3, 784)).shape
    torch.Size([5, 3, 40])
    """
    if len(sizes) < 2 or min(sizes) < 1:
        raise ValueError(f"expected at least two positive sizes, got {sizes}")
    # in place, for nothing but a hook reads what a layer returns
    options = {"inplace": True} if activation is nn.ReLU else {}
    layers: list[nn.Module] = []
    for size_in, size_out in itertools.pairwise(sizes):
        layers += [Linear(size_in, size_out), activation(**options)]
    return Flat(*layers[:-1], shape=sizes[:1])


@torch.no_grad()
def set_output_bias(net: nn.Module, bias: Tensor) -> None:
    """Set the bias of the last layer, an ``nn.Linear``, to ``bias`` of shape (out,).

    A Bernoulli decoder that starts at the logits of the mean image learns faster.

    Source: Burda, Grosse & Salakhutdinov, *Importance Weighted Autoencoders*, 2015.

    Raises ``TypeError`` where the last layer is not an ``nn.Linear`` with a bias, ``ValueError``
    where the size differs.

    >>> net, x = mlp(2, 16, 64), torch.rand(100, 64).round()
    >>> set_output_bias(net, x.mean(0).clamp(0.001, 0.999).logit())
    """
    *_, last = net.modules()
    if not isinstance(last, nn.Linear) or last.bias is None:
        raise TypeError(
            f"expected a network that ends in nn.Linear with a bias, got {type(last).__name__}"
        )
    if bias.shape != last.bias.shape:
        raise ValueError(
            f"expected a bias of shape {tuple(last.bias.shape)}, got {tuple(bias.shape)}"
        )
    last.bias.copy_(bias)
