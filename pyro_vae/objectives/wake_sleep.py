"""Reweighted wake-sleep."""

from dataclasses import dataclass
from typing import Any

import torch
from pyro import poutine
from torch import Tensor

from ..programs.isolation import store_untouched
from ..programs.scoring import draw, terms
from ..programs.sites import Program, log_prob_sum, stochastic_sites
from .estimate import Estimate
from .importance_weighted import ImportanceWeighted, common_scale, estimate, with_gradient
from .score_function import detached_draws


@dataclass(frozen=True)
class ReweightedWakeSleep(ImportanceWeighted):
    """Model and guide each minimise a loss of their own, neither through the draws: latents may be discrete.

    The model ascends the bound of IWAE, sum_k w~_k dlog p(x, z_k)/dtheta with w~ = softmax(log w). The guide descends the
    inclusive divergence KL(posterior || q): awake sum_k w~_k dlog q(z_k | x)/dphi, and with ``insomnia`` < 1 also asleep,
    (1 - insomnia) dlog q(z' | x')/dphi at dreams (x', z') ~ p. The reported loss is minus the bound of IWAE.

    Asleep, the dreams take the place of the arguments that the model observes, which must be passed to its sites as they
    are. A flow's density is that of points drawn without gradient, so it is inverted (see :mod:`pyro_vae.families.flow`).

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
        gradient = (
            weight * (now.log_likelihood + now.log_prior + self.insomnia * now.log_guide)
        ).sum()
        if self.insomnia < 1:
            gradient = gradient + (1 - self.insomnia) * _log_guide_of_dreams(
                model, guide, args, kwargs
            )
        return estimate(
            with_gradient(-self._bound(now.log_weight), -gradient), now, common_scale(*traces)
        )


def _log_guide_of_dreams(model: Program, guide: Program, args: Any, kwargs: Any) -> Tensor:
    """log q(z' | x') summed over a batch of dreams (x', z') ~ p, one for each datum."""
    with torch.no_grad(), store_untouched():
        dream = poutine.trace(poutine.uncondition(model)).get_trace(*args, **kwargs)
    observed = {
        id(site["infer"]["obs"]): site["value"]
        for site in stochastic_sites(dream)
        if site["infer"].get("was_observed")
    }
    missing = observed.keys() - {id(value) for value in (*args, *kwargs.values())}
    if missing:
        raise ValueError(
            "expected the model to observe its arguments as they are, got other tensors: use insomnia=1"
        )
    args = [observed.get(id(value), value) for value in args]
    kwargs = {name: observed.get(id(value), value) for name, value in kwargs.items()}
    with store_untouched():
        asleep = poutine.trace(poutine.replay(guide, trace=dream)).get_trace(*args, **kwargs)
    return log_prob_sum(stochastic_sites(asleep), set(), scaled=False)
