"""The agreement of clusters, found without labels, with classes."""

from torch import Tensor


def cluster_accuracy(clusters: Tensor, labels: Tensor) -> float:
    """Return the accuracy of the best one-to-one matching m of clusters and classes.

    accuracy = max_m 1/N sum_n [label_n = m(cluster_n)],  m one-to-one (Hungarian algorithm)

    ``clusters`` and ``labels`` are integers (N,). Where there are more clusters than classes, the
    data of unmatched clusters count as wrong.

    Source: Yang, Xu, Nie, Yan & Zhuang, *Image Clustering Using Local Discriminant Models*, 2010.

    Raises ``ValueError`` unless both are (N,) with N of at least 1.

    >>> cluster_accuracy(torch.tensor([1, 1, 0, 0]), torch.tensor([0, 0, 1, 0]))
    0.75
    """
    if clusters.ndim != 1 or clusters.shape != labels.shape or len(labels) == 0:
        raise ValueError(
            "expected clusters and labels of one shape (N,), "
            f"got {tuple(clusters.shape)} and {tuple(labels.shape)}"
        )
    from scipy.optimize import linear_sum_assignment  # slow to import
    from sklearn.metrics.cluster import contingency_matrix

    counts = contingency_matrix(labels.cpu().numpy(), clusters.cpu().numpy())
    return float(counts[linear_sum_assignment(counts, maximize=True)].sum()) / len(labels)
