"""scikit-learn's small tables of real numbers."""

import torch
from torch import Tensor

TABLES = ("iris", "wine", "breast_cancer", "diabetes")


def load_table(name: str) -> Tensor:
    """Return one of :data:`TABLES`, (N, D) float32, each column scaled to mean 0 and variance 1.

    Raises ``ValueError`` for another name.

    >>> load_table("iris").shape
    torch.Size([150, 4])
    """
    from sklearn import datasets  # slow to import

    if name not in TABLES:
        raise ValueError(f"expected one of {', '.join(TABLES)}, got {name!r}")
    values = torch.from_numpy(getattr(datasets, f"load_{name}")().data)
    return ((values - values.mean(0)) / values.std(0, correction=0)).float()
