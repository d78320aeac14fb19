"""Reweighted wake-sleep."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..programs.pair import Pair
from ..programs.simulation import dream
from .importance_weighted import (
    ImportanceWeighted,
    bound,
    check_unsummed,
    normalised,
    with_gradient,
)
from .objective import Estimate


@dataclass(frozen=True)
class ReweightedWakeSleep(ImportanceWeighted):
    """Model and guide have a loss each; no gradient goes through the draws.

    The model ascends the bound of IWAE, sum_k w~_k dlog p(x, z_k)/dtheta with w~ = softmax(log w).
    The guide descends the inclusive divergence KL(posterior || q). Its wake phase has the gradient
    sum_k w~_k dlog q(z_k | x)/dphi with the weight ``insomnia``. Its sleep phase has the gradient
    dlog q(z' | x')/dphi at dreams (x', z') ~ p with the weight 1 - ``insomnia``. The reported loss
    is minus the bound of IWAE. Latents may be discrete.

    In the sleep phase the dreams replace the arguments that the model observes, so the model must
    pass these arguments to its sites unchanged. A flow is inverted, because the draws carry no
    gradient (see :mod:`pyro_vae.families.flow`).

    Source: Bornschein & Bengio, *Reweighted Wake-Sleep*, 2015; Le et al., *Revisiting Reweighted
    Wake-Sleep*, 2019.

    Raises ``ValueError`` for K < 1, an insomnia outside [0, 1], or sites of different scales.
    """

    insomnia: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 <= self.insomnia <= 1.0:
            raise ValueError(f"expected insomnia in [0, 1], got {self.insomnia}")

    def score(self, pair: Pair, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Estimate:
        """Return the estimate of a pair on a call."""
        draw = pair.draw(args, kwargs, self.num_particles, detached=True)
        check_unsummed(draw.structure)
        log_weight = draw.log_weight
        weight = normalised(log_weight)
        log_joint = draw.log_likelihood.local + draw.log_prior.local
        gradient = (weight * (log_joint + self.insomnia * draw.log_guide.local)).sum()
        if self.insomnia < 1:
            asleep = log_guide_of_dreams(pair, args, kwargs)
            gradient = gradient + (1 - self.insomnia) * asleep
        loss = with_gradient(-bound(log_weight).sum(), -gradient)
        return Estimate.of(draw, draw.scale * loss)


def log_guide_of_dreams(pair: Pair, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """log q(z' | x') summed over a batch of dreams (x', z') ~ p, one for each datum."""
    with torch.no_grad():
        try:
            dreamt = dream(pair.model, args, kwargs)
        except ValueError as error:
            raise ValueError(f"{error}: use insomnia=1") from error
    call = dreamt.args, dreamt.kwargs
    structure = pair.structure(call)
    latents = {name: structure.latents[name] for name in dreamt.latents}
    values = {name: latents[name].from_rows(z, 1) for name, z in dreamt.latents.items()}
    return pair.score_guide(call, values, 1).sum()
