"""Which data keep their labels in semi-supervised learning."""

from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from .adapters import Data, take


def balanced(labels: Tensor, number: int, seed: int) -> Tensor:
    """Return the indices of ``number`` data, equally many of each class, in the order of classes.

    ``labels`` is (N,), with the classes 0 to C - 1; the result is (number,).

    Raises ``ValueError`` where C does not divide ``number``, or a class has too few data.

    >>> labels = torch.arange(100) % 10
    >>> labels[balanced(labels, 20, seed=0)].bincount().tolist()
    [2, 2, 2, 2, 2, 2, 2, 2, 2, 2]
    """
    counts = labels.bincount()
    each, rest = divmod(number, len(counts))
    if rest or each < 1 or each > int(counts.min()):
        raise ValueError(
            f"expected a multiple of {len(counts)} labels, at most {int(counts.min())} of each "
            f"class, got {number}"
        )
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    return torch.cat([order[labels[order] == y][:each] for y in range(len(counts))])


@dataclass(frozen=True)
class Labelled:
    """Data ``x``, of which those with the indices ``some`` (L,) have labels ``y``, one-hot (L, C).

    >>> from pyro_vae.data import as_data
    >>> data = Labelled.of(as_data(torch.rand(100, 3)), torch.arange(100) % 10, 20, seed=0)
    >>> [part.shape for part in data.draw(5)]
    [torch.Size([5, 3]), torch.Size([5, 10])]
    """

    x: Data
    some: Tensor
    y: Tensor

    @classmethod
    def of(cls, x: Data, labels: Tensor, number: int, seed: int) -> Self:
        """Keep the labels of ``number`` data, as :func:`balanced` does; ``labels`` is (N,)."""
        some = balanced(labels, number, seed)
        return cls(x, some, F.one_hot(labels[some]).float())

    def draw(self, number: int) -> tuple[Tensor, ...]:
        """Return a batch of data with labels, drawn with replacement: the data, then y."""
        chosen = torch.randint(len(self.some), (number,))
        return *take(self.x, self.some[chosen]), self.y[chosen]
