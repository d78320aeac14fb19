"""How well clusters found without labels match classes."""

from torch import Tensor


def cluster_accuracy(clusters: Tensor, labels: Tensor) -> float:
    """The share of data whose class is that of their cluster, under the best one-to-one matching.

    accuracy = max_m 1/N sum_n [label_n = m(cluster_n)],  m one-to-one (Hungarian algorithm)

    ``clusters`` and ``labels`` are (N,), whole numbers. Where there are more clusters than classes,
    the data of unmatched clusters count as wrong.

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
