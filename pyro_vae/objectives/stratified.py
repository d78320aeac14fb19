"""The ELBO of a mixture guide from one draw of each component, for well separated components."""

from dataclasses import dataclass
from typing import Any, cast

from torch import Tensor
from torch.distributions import MixtureSameFamily

from ..programs.pair import Pair
from ..programs.sites import base_name, stochastic_sites
from .objective import Estimate, Objective


@dataclass(frozen=True)
class Stratified_ELBO(Objective):
    """The ELBO under a mixture q(z | x) = sum_j pi_j q_j(z | x), from one draw of each component.

    loss = -sum_b sum_j pi_jb ( log p(x_b, z_jb) - log q(z_jb | x_b) ),  z_jb ~ q_j(z | x_b)

    The weights pi get an exact gradient. The implicit gradient of
    :class:`pyro_vae.families.mixture.MixtureOfNormals` needs draws that move between components.
    The guide has one latent site and runs twice; the decoder runs on J rows per datum.

    Source: Morningstar et al., *Automatic Differentiation Variational Inference with Mixtures*,
    2021 (with K draws per component).

    Raises ``TypeError`` unless the guide draws one site from a mixture with reparameterised
    components, and ``ValueError`` for sites of different scales.

    >>> import torch
    >>> from torch import nn
    >>> from pyro_vae import VAE, Bernoulli, StandardNormal, mlp
    >>> from pyro_vae.families.mixture import MixtureOfNormals
    >>> q = MixtureOfNormals(mlp(64, 16, MixtureOfNormals.outputs(2, components=3)), components=3)
    >>> vae = VAE(StandardNormal(2), Bernoulli(mlp(2, 16, 64)), q)
    >>> Stratified_ELBO().estimate(vae.model, vae.guide, torch.ones(3, 64)).loss.shape
    torch.Size([])
    """

    def score(self, pair: Pair, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Estimate:
        """Return the estimate of a pair on a call."""
        found = pair.structure((args, kwargs))
        name, mixture = _mixture(stochastic_sites(pair.guide_trace((args, kwargs))))
        at = -1 - len(mixture.event_shape)
        z = mixture.component_distribution.rsample().movedim(at, 0)  # (J, ...)
        weight = mixture.mixture_distribution.probs.movedim(-1, 0)  # (J, B)
        draw = pair.at(args, kwargs, {name: found.latents[name].from_draws(z)}, len(z))

        def mean(value: Tensor) -> Tensor:
            return cast(Tensor, (draw.scale * (weight * value).sum(0)).sum())

        log_likelihood = draw.log_likelihood.local
        kl = draw.kl.local
        loss = -mean(draw.log_weight)
        return Estimate(loss, mean(log_likelihood).detach(), mean(kl).detach())


def _mixture(sites: list[Any]) -> tuple[str, Any]:
    """The name of the one latent site, and its mixture."""
    families = {site["name"]: base_name(site["fn"]) for site in sites}
    if len(sites) != 1 or not isinstance(sites[0]["fn"], MixtureSameFamily):
        raise TypeError(
            f"expected a guide with one latent site, drawn from a mixture, got {families}: "
            "use Trace_ELBO"
        )
    if not sites[0]["fn"].component_distribution.has_rsample:
        raise TypeError(
            f"expected reparameterised components, got those of {families}: use ScoreFunction_ELBO"
        )
    return sites[0]["name"], sites[0]["fn"]
