"""The ELBO of a mixture guide from one draw of each component: the objective where components lie apart."""

from dataclasses import dataclass
from typing import Any, cast

from pyro import poutine
from torch import Tensor
from torch.distributions import MixtureSameFamily

from ..programs.checks import dtypes_explained
from ..programs.isolation import store_untouched
from ..programs.scoring import draw, terms
from ..programs.sites import Program, base_name, stochastic_sites
from .doubly_reparameterised import fixed
from .estimate import Estimate
from .importance_weighted import common_scale


@dataclass(frozen=True)
class Stratified_ELBO:
    """The ELBO under a mixture q(z | x) = sum_j pi_j q_j(z | x), by one draw z_j ~ q_j of each of its J components.

    loss = -sum_b sum_j pi_jb ( log p(x_b, z_jb) - log q(z_jb | x_b) )

    The weights pi get their gradient without a draw that crosses from one component to another, which the implicit gradient
    of :class:`pyro_vae.families.mixture.MixtureOfNormals` needs. The guide has one latent site and runs twice; the decoder sees J
    rows per datum. ``max_plate_nesting`` is the depth of the programs' plates.

    Source: Morningstar et al., *Automatic Differentiation Variational Inference with Mixtures*, 2021 (there with K draws).

    Raises ``TypeError`` unless the guide draws one site from a mixture, with components that are reparameterised, and
    ``ValueError`` for sites of different scales.

    >>> import torch
    >>> from torch import nn
    >>> from pyro_vae import VAE, Bernoulli, StandardNormal, mlp
    >>> from pyro_vae.families.mixture import MixtureOfNormals
    >>> q = MixtureOfNormals(mlp(64, 16, MixtureOfNormals.outputs(2, components=3)), components=3)
    >>> vae = VAE(StandardNormal(2), Bernoulli(mlp(2, 16, 64)), q)
    >>> Stratified_ELBO()(vae.model, vae.guide, torch.ones(3, 64)).loss.shape
    torch.Size([])
    """

    max_plate_nesting: int = 1

    def __call__(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> Estimate:
        """Return the estimate for a batch."""
        with store_untouched(), dtypes_explained(args, kwargs, guide):
            first = poutine.trace(guide).get_trace(*args, **kwargs)
        name, mixture = _mixture(stochastic_sites(first))
        at = -1 - len(mixture.event_shape)
        z = mixture.component_distribution.rsample().movedim(at, 0)
        weight = mixture.mixture_distribution.probs.movedim(-1, 0)
        again = poutine.replay(guide, trace=fixed(first, {name: z}))
        traces = draw(model, again, args, kwargs, len(z), self.max_plate_nesting)
        now, scale = terms(*traces, scaled=False), common_scale(*traces)

        def mean(value: Tensor) -> Tensor:
            return cast(Tensor, (scale * (weight * value).sum(0)).sum())

        kl = now.log_guide - now.log_prior
        return Estimate(-mean(now.log_weight), mean(now.log_likelihood).detach(), mean(kl).detach())


def _mixture(sites: list[Any]) -> tuple[str, Any]:
    """The name of the one latent site, and its mixture."""
    families = {site["name"]: base_name(site["fn"]) for site in sites}
    if len(sites) != 1 or not isinstance(sites[0]["fn"], MixtureSameFamily):
        raise TypeError(
            f"expected a guide with one latent site, drawn from a mixture, got {families}: use Trace_ELBO"
        )
    if not sites[0]["fn"].component_distribution.has_rsample:
        raise TypeError(
            f"expected reparameterised components, got those of {families}: use ScoreFunction_ELBO"
        )
    return sites[0]["name"], sites[0]["fn"]
