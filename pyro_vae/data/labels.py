"""Which data keep their labels in semi-supervised learning."""

import torch
from torch import Tensor


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
