"""Free bits: the ELBO with a floor under the KL."""

from dataclasses import dataclass
from typing import Any

from pyro.distributions.util import scale_and_mask
from torch import Tensor
from torch.distributions import Independent, kl_divergence

from ..programs.scoring import draw
from ..programs.sites import Program, base_name, data_dim, log_prob_sum, stochastic_sites, sum_but
from .elbo import check_analytic
from .estimate import Estimate


@dataclass(frozen=True)
class FreeBits:
    """The ELBO with a floor under the KL of each latent dimension and datum, below which it costs nothing to inform.

    loss = -sum_b ( E_q[log p(x_b | z)] - sum_d max(KL(q(z_d | x_b) || p(z_d)), floor) )

    ``floor`` is in nats per dimension; of a family with no closed form by dimension (full rank, spherical) the whole KL is
    one group. Kingma et al. compare the batch's mean with the floor; here each datum is compared, so that data do not mix.

    Source: Kingma et al., *Improving Variational Inference with Inverse Autoregressive Flow*, 2016, appendix C.8.

    Raises ``ValueError`` for a negative floor, ``TypeError`` where no closed-form KL is known, and both as
    :class:`pyro_vae.objectives.elbo.TraceMeanField_ELBO` does: where the guide draws its sites in another order, or without a gradient.
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
        log_likelihood = log_prob_sum(
            (site for site in stochastic_sites(model_trace) if site["is_observed"]), {dim}
        ).sum()
        sites = [
            (site, _kl_groups(site["fn"], model_trace.nodes[site["name"]]["fn"]))
            for site in stochastic_sites(guide_trace)
        ]

        def total(groups: Any) -> Tensor:
            summed = [
                scale_and_mask(groups(kl).sum(-1), site["scale"], site["mask"])
                for site, kl in sites
            ]
            return sum(
                (sum_but(kl, {dim}).sum() for kl in summed), start=log_likelihood.new_zeros(())
            )

        loss = total(lambda kl: kl.clamp(min=self.floor)) - log_likelihood
        return Estimate(loss, log_likelihood.detach(), total(lambda kl: kl).detach())


def _kl_groups(q: Any, p: Any) -> Tensor:
    """KL(q || p) by dimension (..., D), or (..., 1) where the dimensions depend on each other."""
    try:
        if (
            isinstance(q, Independent)
            and isinstance(p, Independent)
            and q.reinterpreted_batch_ndims == p.reinterpreted_batch_ndims
        ):
            return kl_divergence(q.base_dist, p.base_dist).flatten(-q.reinterpreted_batch_ndims)
        return kl_divergence(q, p).unsqueeze(-1)
    except NotImplementedError as error:
        raise TypeError(
            f"expected families with a closed-form KL, got {base_name(q)} and {base_name(p)}: use Trace_ELBO"
        ) from error
