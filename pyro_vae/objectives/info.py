"""InfoVAE: the ELBO with a divergence between the aggregate posterior and the prior."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..programs.scoring import draw, terms
from ..programs.sites import Program, stochastic_sites
from .estimate import Estimate
from .importance_weighted import check_reparameterised


@dataclass(frozen=True)
class InfoVAE:
    """The ELBO with its KL traded for the divergence between the aggregate q(z) and the prior.

    loss = -sum_b ( E_q[log p(x_b | z)] - (1 - alpha) KL(q(z | x_b) || p(z)) ) + B (alpha + lambda - 1) MMD^2(q(z), p(z))

    with ``weight`` = lambda and MMD^2 the unbiased estimate from the B draws of the batch and B of the prior, under the
    kernel sum_s c/(c + |a - b|^2), c = s 2 D (Tolstikhin et al. 2018). It compares a batch, so the loss is no sum over data.
    alpha = 0 and lambda = 1 is the ELBO, alpha = 1 a Wasserstein autoencoder, which a ``Delta`` guide makes deterministic.

    Source: Zhao, Song & Ermon, *InfoVAE*, 2019, equation 6.

    Raises ``ValueError`` for a batch of one, or programs with more than one latent site; ``TypeError`` as IWAE.
    """

    alpha: float = 0.0
    weight: float = 10.0

    def __call__(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> Estimate:
        """Return the estimate for a batch."""
        model_trace, guide_trace = draw(model, guide, args, kwargs)
        check_reparameterised(guide_trace, "Trace_ELBO")
        sites = stochastic_sites(guide_trace)
        if len(sites) != 1:
            raise ValueError(f"expected one latent site, got {[site['name'] for site in sites]}")
        z = sites[0]["value"]
        log_likelihood, log_prior, log_guide = (
            value.sum() for value in terms(model_trace, guide_trace)
        )
        kl = log_guide - log_prior
        divergence = mmd(z, model_trace.nodes[sites[0]["name"]]["fn"].sample())
        scale = sites[0]["scale"]  # each datum counts so many times
        count = scale.expand(len(z)).sum() if isinstance(scale, Tensor) else scale * len(z)
        loss = (
            (1 - self.alpha) * kl
            - log_likelihood
            + count * (self.alpha + self.weight - 1) * divergence
        )
        return Estimate(loss, log_likelihood.detach(), kl.detach())


def mmd(
    a: Tensor, b: Tensor, scales: Sequence[float] = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
) -> Tensor:
    """The squared maximum mean discrepancy between two samples (N, D), by its unbiased estimate, which may be negative.

    Source: Gretton et al., *A Kernel Two-Sample Test*, 2012, equation 4.

    >>> bool(mmd(torch.randn(500, 2), torch.randn(500, 2)) < 0.1)
    True
    """
    if a.ndim != 2 or len(a) < 2 or a.shape != b.shape:
        raise ValueError(
            f"expected two samples of one shape (N, D), of at least 2 draws, got {tuple(a.shape)} and {tuple(b.shape)}"
        )

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        distance = (a.unsqueeze(-2) - b.unsqueeze(-3)).square().sum(-1)
        return torch.stack(
            [1 / (1 + distance / (2 * a.shape[-1] * scale)) for scale in scales]
        ).sum(0)

    n = len(a)
    within = (kernel(a, a).sum() + kernel(b, b).sum() - 2 * n * len(scales)) / (
        n * (n - 1)
    )  # without the diagonals, of ones
    return within - 2 * kernel(a, b).mean()
