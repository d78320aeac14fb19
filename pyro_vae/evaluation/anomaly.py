"""Anomaly scores, which are larger for unusual data, and how well they separate two sets."""

from typing import Any

import torch
from torch import Tensor

from ..programs.sites import Program
from .importance import Scorer, columns, log_likelihood
from .suboptimality import LocalFit


def surprise(
    model: Program,
    guide: Program,
    *args: Any,
    num_samples: int = 100,
    **kwargs: Any,
) -> Tensor:
    """Return -log p(x), (B,), in nats, estimated by :func:`pyro_vae.log_likelihood`.

    This score fails where the strange data are simpler than the familiar data, because simple data
    have a high likelihood. Arguments and errors are those of :func:`pyro_vae.log_likelihood`.

    Source: Nalisnick et al., *Do Deep Generative Models Know What They Don't Know?*, 2019.

    >>> surprise(vae.model, vae.guide, torch.ones(3, 64)).shape
    torch.Size([3])
    """
    return -log_likelihood(model, guide, *args, num_samples=num_samples, **kwargs)


def likelihood_regret(
    model: Program,
    guide: Program,
    *args: Any,
    fit: LocalFit | None = None,
    num_samples: int = 100,
    chunk_draws: int = 2048,
    progress: bool = False,
    **kwargs: Any,
) -> Tensor:
    """Return max_q ELBO(q) - ELBO(q(z | x)), (B,), in nats.

    This is the loss of the encoder compared with the best q of each datum. The encoder was trained
    on familiar data, so the loss is larger on strange data. The score is the amortisation gap of
    :func:`pyro_vae.evaluation.suboptimality.gaps`, whose arguments and errors it has: ``fit``
    defines how the best q is found, and the ELBO of the guide is the mean of ``num_samples`` draws.

    Source: Xiao, Yan & Amit, *Likelihood Regret: An Out-of-Distribution Detection Score for
    Variational Auto-encoder*, 2020.

    >>> likelihood_regret(vae.model, vae.guide, torch.ones(3, 64), fit=LocalFit(num_steps=5)).shape
    torch.Size([3])
    """
    blocks = columns(Scorer(model, guide), (args, kwargs), num_samples)
    elbo = torch.cat([block.log_weight.mean(0) for block in blocks])
    local = fit or LocalFit()
    best = local.elbo(model, guide, *args, chunk_draws=chunk_draws, progress=progress, **kwargs)
    return best - elbo


def auroc(familiar: Tensor, strange: Tensor) -> float:
    """The area under the ROC curve: the probability that a strange datum has the larger score.

    The scores are (N,) of familiar and (M,) of strange data. 1 is a perfect separation, 0.5 is
    chance; below 0.5 the familiar data have larger scores.

    >>> auroc(torch.tensor([1.0, 2.0]), torch.tensor([1.5, 3.0]))
    0.75
    """
    from sklearn.metrics import roc_auc_score  # slow to import

    labels = torch.cat([torch.zeros(len(familiar)), torch.ones(len(strange))])
    return float(roc_auc_score(labels.numpy(), torch.cat([familiar, strange]).cpu().numpy()))
