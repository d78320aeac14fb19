"""Other objectives: Renyi's bounds, reweighted wake-sleep, InfoVAE."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from torch import Tensor

from .elbo import Estimate
from .iwae import ImportanceWeighted, check_reparameterised, common_scale, estimate, with_gradient
from .trace import Program, draw, log_prob_sum, stochastic_sites, store_untouched, terms


@dataclass(frozen=True)
class Renyi(ImportanceWeighted):
    """The variational Renyi bound, between the ELBO (alpha -> 1) and IWAE (alpha = 0); above it for alpha < 0.

    loss = -sum_b 1/(1 - alpha) log 1/K sum_k w_kb^(1 - alpha)

    Source: Li & Turner, *Renyi Divergence Variational Inference*, 2016, equation 8.

    Raises ``ValueError`` for alpha = 1 (use ``Trace_ELBO``), and as :class:`pyro_vae.iwae.IWAE`.
    """

    alpha: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.alpha == 1 or not math.isfinite(self.alpha):
            raise ValueError(f"expected a finite alpha other than 1, whose limit is Trace_ELBO, got {self.alpha}")

    def __call__(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> Estimate:
        """Return the estimate for a batch."""
        traces = draw(model, guide, args, kwargs, self.num_particles, self.max_plate_nesting)
        check_reparameterised(traces[1], "ReweightedWakeSleep")
        now = terms(*traces, scaled=False)
        power = 1 - self.alpha
        return estimate(-self._bound(power * now.log_weight) / power, now, common_scale(*traces))


@dataclass(frozen=True)
class ReweightedWakeSleep(ImportanceWeighted):
    """Model and guide each minimise a loss of their own, neither through the draws: latents may be discrete.

    The model ascends the bound of IWAE, sum_k w~_k dlog p(x, z_k)/dtheta with w~ = softmax(log w). The guide descends the
    inclusive divergence KL(posterior || q): awake sum_k w~_k dlog q(z_k | x)/dphi, and with ``insomnia`` < 1 also asleep,
    (1 - insomnia) dlog q(z' | x')/dphi at dreams (x', z') ~ p. The reported loss is minus the bound of IWAE.

    Asleep, the dreams take the place of the arguments that the model observes, which must be passed to its sites as they
    are. A flow's density is that of points drawn without gradient, so it is inverted (see :mod:`pyro_vae.flows`).

    Source: Bornschein & Bengio, *Reweighted Wake-Sleep*, 2015; Le et al., *Revisiting Reweighted Wake-Sleep*, 2019.

    Raises ``ValueError`` for K < 1, an insomnia outside [0, 1], or sites of different scales.
    """

    insomnia: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 <= self.insomnia <= 1.0:
            raise ValueError(f"expected insomnia in [0, 1], got {self.insomnia}")

    def __call__(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> Estimate:
        """Return the estimate for a batch."""
        with detached_draws():
            traces = draw(model, guide, args, kwargs, self.num_particles, self.max_plate_nesting)
        now = terms(*traces, scaled=False)
        weight = now.log_weight.detach().softmax(0)
        gradient = (weight * (now.log_likelihood + now.log_prior + self.insomnia * now.log_guide)).sum()
        if self.insomnia < 1:
            gradient = gradient + (1 - self.insomnia) * _log_guide_of_dreams(model, guide, args, kwargs)
        return estimate(with_gradient(-self._bound(now.log_weight), -gradient), now, common_scale(*traces))


class detached_draws(Messenger):  # type: ignore[misc]
    """Cut every draw from the parameters that made it, before a trace inside records it and the program goes on."""

    def _pyro_post_sample(self, msg: Any) -> None:
        if isinstance(msg["value"], Tensor):
            msg["value"] = msg["value"].detach()


def _log_guide_of_dreams(model: Program, guide: Program, args: Any, kwargs: Any) -> Tensor:
    """log q(z' | x') summed over a batch of dreams (x', z') ~ p, one for each datum."""
    with torch.no_grad(), store_untouched():
        dream = poutine.trace(poutine.uncondition(model)).get_trace(*args, **kwargs)
    observed = {id(site["infer"]["obs"]): site["value"] for site in stochastic_sites(dream) if site["infer"].get("was_observed")}
    missing = observed.keys() - {id(value) for value in (*args, *kwargs.values())}
    if missing:
        raise ValueError("expected the model to observe its arguments as they are, got other tensors: use insomnia=1")
    args = [observed.get(id(value), value) for value in args]
    kwargs = {name: observed.get(id(value), value) for name, value in kwargs.items()}
    with store_untouched():
        asleep = poutine.trace(poutine.replay(guide, trace=dream)).get_trace(*args, **kwargs)
    return log_prob_sum(stochastic_sites(asleep), set(), scaled=False)


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
        log_likelihood, log_prior, log_guide = (value.sum() for value in terms(model_trace, guide_trace))
        kl = log_guide - log_prior
        divergence = mmd(z, model_trace.nodes[sites[0]["name"]]["fn"].sample())
        scale = sites[0]["scale"]  # each datum counts so many times
        count = scale.expand(len(z)).sum() if isinstance(scale, Tensor) else scale * len(z)
        loss = (1 - self.alpha) * kl - log_likelihood + count * (self.alpha + self.weight - 1) * divergence
        return Estimate(loss, log_likelihood.detach(), kl.detach())


def mmd(a: Tensor, b: Tensor, scales: Sequence[float] = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)) -> Tensor:
    """The squared maximum mean discrepancy between two samples (N, D), by its unbiased estimate, which may be negative.

    Source: Gretton et al., *A Kernel Two-Sample Test*, 2012, equation 4.

    >>> bool(mmd(torch.randn(500, 2), torch.randn(500, 2)) < 0.1)
    True
    """
    if a.ndim != 2 or len(a) < 2 or a.shape != b.shape:
        raise ValueError(f"expected two samples of one shape (N, D), of at least 2 draws, got {tuple(a.shape)} and {tuple(b.shape)}")

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        distance = (a.unsqueeze(-2) - b.unsqueeze(-3)).square().sum(-1)
        return torch.stack([1 / (1 + distance / (2 * a.shape[-1] * scale)) for scale in scales]).sum(0)

    n = len(a)
    within = (kernel(a, a).sum() + kernel(b, b).sum() - 2 * n * len(scales)) / (n * (n - 1))  # without the diagonals, of ones
    return within - 2 * kernel(a, b).mean()
