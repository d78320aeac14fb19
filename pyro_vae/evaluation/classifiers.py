"""Classifiers on the latent means, for labels that were not used in training."""

from typing import Any

from torch import Tensor


def linear_probe(train: Tensor, train_labels: Tensor, test: Tensor, test_labels: Tensor) -> float:
    """Return the test accuracy of logistic regression on standardised latent means (N, D).

    Labels are integers (N,).

    Source: Alain & Bengio, *Understanding Intermediate Layers Using Linear Classifier Probes*,
    2016.

    >>> import torch
    >>> z = torch.tensor([[-2.0], [-1.0], [1.0], [2.0]])
    >>> linear_probe(z, z[:, 0] > 0, z / 2, z[:, 0] > 0)
    1.0
    """
    from sklearn.linear_model import LogisticRegression  # slow to import
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return _accuracy(
        make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)),
        train,
        train_labels,
        test,
        test_labels,
    )


def nearest_neighbours(
    train: Tensor, train_labels: Tensor, test: Tensor, test_labels: Tensor, num_neighbours: int = 5
) -> float:
    """Return the test accuracy of a k-nearest-neighbours classifier on latent means (N, D).

    Labels are integers (N,); k is ``num_neighbours``.

    >>> import torch
    >>> z = torch.tensor([[-2.0], [-1.0], [1.0], [2.0]])
    >>> nearest_neighbours(z, z[:, 0] > 0, z / 2, z[:, 0] > 0, num_neighbours=1)
    1.0
    """
    from sklearn.neighbors import KNeighborsClassifier  # slow to import

    return _accuracy(KNeighborsClassifier(num_neighbours), train, train_labels, test, test_labels)


def _accuracy(classifier: Any, *data: Tensor) -> float:
    train, train_labels, test, test_labels = (part.cpu().numpy() for part in data)
    return float(classifier.fit(train, train_labels).score(test, test_labels))
