"""Cures of posterior collapse, where q(z | x) falls back to the prior and the decoder ignores z.

Free bits and a normalised posterior mean; annealing is a schedule of beta (:mod:`pyro_vae.schedules`). Whether a cure
works shows in the KL and in :func:`pyro_vae.latents.active_units`.
"""

from dataclasses import dataclass
from typing import Any

import torch
from pyro.distributions.util import scale_and_mask
from torch import Tensor, nn
from torch.distributions import Independent, kl_divergence

from .elbo import Estimate, check_analytic
from .trace import Program, base_name, data_dim, draw, log_prob_sum, stochastic_sites, sum_but


@dataclass(frozen=True)
class FreeBits:
    """The ELBO with a floor under the KL of each latent dimension and datum, below which it costs nothing to inform.

    loss = -sum_b ( E_q[log p(x_b | z)] - sum_d max(KL(q(z_d | x_b) || p(z_d)), floor) )

    ``floor`` is in nats per dimension; of a family with no closed form by dimension (full rank, spherical) the whole KL is
    one group. Kingma et al. compare the batch's mean with the floor; here each datum is compared, so that data do not mix.

    Source: Kingma et al., *Improving Variational Inference with Inverse Autoregressive Flow*, 2016, appendix C.8.

    Raises ``ValueError`` for a negative floor, ``TypeError`` where no closed-form KL is known, and both as
    :class:`pyro_vae.elbo.TraceMeanField_ELBO` does: where the guide draws its sites in another order, or without a gradient.
    """

    floor: float = 0.1

    def __post_init__(self) -> None:
        if self.floor < 0:
            raise ValueError(f"expected a floor of at least 0, got {self.floor}")

    def __call__(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> Estimate:
        """Return the estimate for a batch."""
        model_trace, guide_trace = draw(model, guide, args, kwargs)
        check_analytic(model_trace, guide_trace)
        dim = data_dim(model_trace, guide_trace)
        log_likelihood = log_prob_sum((site for site in stochastic_sites(model_trace) if site["is_observed"]), {dim}).sum()
        sites = [(site, _kl_groups(site["fn"], model_trace.nodes[site["name"]]["fn"])) for site in stochastic_sites(guide_trace)]

        def total(groups: Any) -> Tensor:
            summed = [scale_and_mask(groups(kl).sum(-1), site["scale"], site["mask"]) for site, kl in sites]
            return sum((sum_but(kl, {dim}).sum() for kl in summed), start=log_likelihood.new_zeros(()))

        loss = total(lambda kl: kl.clamp(min=self.floor)) - log_likelihood
        return Estimate(loss, log_likelihood.detach(), total(lambda kl: kl).detach())


def _kl_groups(q: Any, p: Any) -> Tensor:
    """KL(q || p) by dimension (..., D), or (..., 1) where the dimensions depend on each other."""
    try:
        if isinstance(q, Independent) and isinstance(p, Independent) and q.reinterpreted_batch_ndims == p.reinterpreted_batch_ndims:
            return kl_divergence(q.base_dist, p.base_dist).flatten(-q.reinterpreted_batch_ndims)
        return kl_divergence(q, p).unsqueeze(-1)
    except NotImplementedError as error:
        raise TypeError(f"expected families with a closed-form KL, got {base_name(q)} and {base_name(p)}: use Trace_ELBO") from error


class BatchNormMean(nn.Module):
    """A network for a posterior whose first ``dim`` outputs, the means, are normalised over the batch: BN-VAE.

    mu_d -> spread (mu_d - mean) / std + shift_d,  shift learned, spread fixed

    For a diagonal Normal and the prior N(0, I) it holds the batch's mean KL at or above D spread^2 / 2, whatever the decoder.

    Source: Zhu et al., *A Batch Normalized Inference Network Keeps the KL Vanishing Away*, 2020.

    Raises ``ValueError`` for a spread that is not positive.

    >>> from pyro_vae import DiagonalNormal, mlp
    >>> q = DiagonalNormal(BatchNormMean(mlp(64, 16, 4), dim=2, spread=0.5))
    >>> q(torch.rand(100, 64)).mean.std(0, unbiased=False).round(decimals=2).tolist()
    [0.5, 0.5]
    """

    def __init__(self, net: nn.Module, dim: int, spread: float = 0.5) -> None:
        super().__init__()
        if spread <= 0:
            raise ValueError(f"expected a positive spread, got {spread}")
        self.net = net
        self.dim = dim
        self.spread = spread
        self.norm = nn.BatchNorm1d(dim, affine=False)
        self.shift = nn.Parameter(torch.zeros(dim))

    def forward(self, h: Tensor) -> Tensor:
        output = self.net(h)
        loc = output[..., : self.dim]
        normal = self.norm(loc.reshape(-1, self.dim)).reshape(loc.shape)
        return torch.cat([self.spread * normal + self.shift, output[..., self.dim :]], -1)
