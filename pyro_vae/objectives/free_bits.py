"""Free bits: the ELBO with a minimum for each KL term."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.distributions import Independent

from ..programs.pair import Pair
from ..programs.sites import Site
from .elbo import check_order, closed_form_kl
from .objective import Estimate, Objective


@dataclass(frozen=True)
class FreeBits(Objective):
    """The ELBO where the KL of each latent dimension and datum counts at least ``floor``.

    loss = -sum_b ( E_q[log p(x_b | z)] - sum_d max(KL(q(z_d | x_b) || p(z_d)), floor) )

    Below the floor, information in a dimension has no cost. ``floor`` is in nats per dimension. For
    a family without a closed form by dimension (full rank, spherical) the whole KL is one group.
    Kingma et al. compare the mean over the batch with the floor. Here the KL of each datum is
    compared, so that the loss of a datum does not depend on the others.

    Source: Kingma et al., *Improving Variational Inference with Inverse Autoregressive Flow*, 2016,
    appendix C.8.

    Raises ``ValueError`` for a negative floor; other errors are those of
    :class:`pyro_vae.objectives.TraceMeanField_ELBO`.
    """

    floor: float = 0.1

    def __post_init__(self) -> None:
        if self.floor < 0:
            raise ValueError(f"expected a floor of at least 0, got {self.floor}")

    def score(self, pair: Pair, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Estimate:
        """Return the estimate of a pair on a call."""
        draw = pair.draw(args, kwargs)
        check_order(draw)

        kl = draw.over_latents(lambda q, p: kl_by_dimension(q, p).sum(-1))
        bounded = draw.over_latents(
            lambda q, p: kl_by_dimension(q, p).clamp(min=self.floor).sum(-1)
        )
        elbo = draw.with_score_gradient(draw.log_likelihood - bounded)
        return Estimate.of(draw, -draw.total(elbo), kl)


def kl_by_dimension(q: Site, p: Site) -> Tensor:
    """KL(q || p) by dimension, (..., D), or (..., 1) where the dimensions depend on each other."""
    first = q["fn"]
    second = p["fn"]
    dims = [fn.reinterpreted_batch_ndims for fn in (first, second) if isinstance(fn, Independent)]
    if len(dims) < 2 or dims[0] != dims[1]:
        return closed_form_kl(q, p).unsqueeze(-1)
    kl = closed_form_kl({**q, "fn": first.base_dist}, {**p, "fn": second.base_dist})
    return kl.flatten(-dims[0])
