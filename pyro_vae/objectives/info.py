"""InfoVAE: the ELBO with a divergence between the aggregate posterior and the prior."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..programs.draw import Draw
from ..programs.pair import Pair
from ..programs.sites import is_factor, stochastic_sites
from .importance_weighted import check_moving, check_trained
from .objective import Estimate, Objective


@dataclass(frozen=True)
class InfoVAE(Objective):
    """The ELBO with less KL, and a divergence between the aggregate posterior q(z) and the prior.

    loss = -sum_b ( E_q[log p(x_b | z)] - (1 - alpha) KL(q(z | x_b) || p(z)) )
           + B (alpha + lambda - 1) MMD^2(q(z), p(z))

    ``weight`` is lambda. MMD^2 is the unbiased estimate from the B draws of the batch and B draws
    from the prior, with the kernel sum_s c/(c + |a - b|^2), c = s 2 D (Tolstikhin et al. 2018). It
    compares whole batches, so the loss is not a sum over data. alpha = 0 and lambda = 1 is the
    ELBO. alpha = 1 is a Wasserstein autoencoder, deterministic with a ``Delta`` guide.

    Source: Zhao, Song & Ermon, *InfoVAE*, 2019, equation 6.

    Raises ``ValueError`` for a batch of one, or programs with more than one latent site;
    ``TypeError`` for latents that are not reparameterised.
    """

    alpha: float = 0.0
    weight: float = 10.0

    def score(self, pair: Pair, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Estimate:
        """Return the estimate of a pair on a call."""
        draw = pair.draw(args, kwargs)
        check_moving(draw.structure, "Trace_ELBO")
        check_trained(draw)
        name = _latent(draw)
        z = draw.values[name].reshape(draw.shape[-1], -1)
        if draw.structure.model_values:  # the trace has a row for each of their values
            prior = pair.sample_prior((args, kwargs), 1)[name].detach()
        else:
            prior = draw.model_traces[0].nodes[name]["fn"].sample()
        divergence = _sum(draw.scale, len(z)) * mmd(z, prior.reshape(z.shape))
        negative_elbo = -draw.total(draw.log_likelihood - (1 - self.alpha) * draw.kl)
        return Estimate.of(draw, negative_elbo + (self.alpha + self.weight - 1) * divergence)


def _latent(draw: Draw) -> str:
    """The name of the one latent site.

    Raises ``ValueError`` where there are others, or the site is a global one.
    """
    names = [site["name"] for site in stochastic_sites(draw.guide_traces[0]) if not is_factor(site)]
    if len(names) != 1 or names[0] not in draw.values:
        raise ValueError(f"expected one latent site, in the plate of the data, got {sorted(names)}")
    return str(names[0])


def _sum(scale: Any, number: int) -> Any:
    """The number of data that the batch represents."""
    return scale.expand(number).sum() if isinstance(scale, Tensor) else scale * number


def mmd(
    a: Tensor, b: Tensor, scales: Sequence[float] = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
) -> Tensor:
    """The unbiased estimate of the squared maximum mean discrepancy of two samples (N, D).

    It may be negative. Source: Gretton et al., *A Kernel Two-Sample Test*, 2012, equation 4.
    Raises ``ValueError`` for samples of different shapes, or of fewer than 2 draws.

    >>> bool(mmd(torch.randn(500, 2), torch.randn(500, 2)) < 0.1)
    True
    """
    if a.ndim != 2 or len(a) < 2 or a.shape != b.shape:
        raise ValueError(
            "expected two samples of one shape (N, D), of at least 2 draws, "
            f"got {tuple(a.shape)} and {tuple(b.shape)}"
        )

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        distance = (a.unsqueeze(-2) - b.unsqueeze(-3)).square().sum(-1)
        return torch.stack(
            [1 / (1 + distance / (2 * a.shape[-1] * scale)) for scale in scales]
        ).sum(0)

    n = len(a)
    diagonals = 2 * n * len(scales)  # ones, which are left out
    within = (kernel(a, a).sum() + kernel(b, b).sum() - diagonals) / (n * (n - 1))
    return within - 2 * kernel(a, b).mean()
