"""Pyro's own objectives: replaced by ours where the values agree, otherwise run unchanged.

``Trace_ELBO`` is replaced: ours is the same estimator with one run for all particles.
``TraceMeanField_ELBO`` is replaced where both give the same value on the first batch. This holds
where every KL has a closed form, and no scale applies to the model only. Otherwise it runs
unchanged: it samples the other KLs, and scales a KL as the guide's site. ``RenyiELBO`` is replaced
where nothing is scaled. Otherwise it is refused, because Pyro puts the scale inside the logarithm.
Subclasses, and every other ELBO with a ``differentiable_loss``, run unchanged.
"""

import warnings
from dataclasses import dataclass, field
from typing import Any

import pyro.infer
import torch
from pyro.infer import ELBO

from ..programs.draw import Draw
from ..programs.isolation import unchanged
from ..programs.pair import Pair
from .elbo import Trace_ELBO, TraceMeanField_ELBO
from .objective import Estimate, Objective
from .renyi import Renyi


def adopt(elbo: ELBO, compile: bool = False) -> Objective:
    """Return one of Pyro's ELBOs as an objective.

    Raises ``TypeError`` for an ELBO without a ``differentiable_loss``, and with ``compile`` for an
    ELBO that runs unchanged.
    """
    if type(elbo) is pyro.infer.Trace_ELBO:
        return Trace_ELBO(elbo.num_particles)
    if type(elbo) is pyro.infer.RenyiELBO:
        return _UnscaledRenyi(elbo.num_particles, elbo.alpha)
    if type(elbo) is pyro.infer.TraceMeanField_ELBO:
        return _MeanField(elbo, compile)
    if not hasattr(elbo, "differentiable_loss"):
        raise TypeError(
            f"expected an ELBO with a differentiable_loss, got {type(elbo).__name__}: "
            "use pyro.infer.SVI"
        )
    if compile:
        raise TypeError(
            f"expected an objective of pyro_vae, Pyro's Trace_ELBO or RenyiELBO to compile, got "
            f"Pyro's {type(elbo).__name__}: use its counterpart in pyro_vae.objectives, "
            "or compile=False"
        )
    return AsItIs(elbo)


@dataclass(frozen=True)
class _UnscaledRenyi(Renyi):
    """Pyro's ``RenyiELBO``, of programs without a scale."""

    def check(self, draw: Draw) -> None:
        """Raise ``ValueError`` where something is scaled."""
        super().check(draw)
        if isinstance(draw.scale, torch.Tensor) or draw.scale != 1:
            raise ValueError(
                "expected programs without a scale for Pyro's RenyiELBO, which keeps it inside the "
                "logarithm, got one: use IWAE or Renyi of pyro_vae, which do not"
            )


@dataclass(frozen=True, eq=False)
class _MeanField(Objective):
    """Pyro's ``TraceMeanField_ELBO``, or ours if both agree on the first batch."""

    elbo: Any
    compile: bool
    chosen: list[Objective] = field(default_factory=list)

    def score(self, pair: Pair, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Estimate:
        """Return the estimate of a pair on a call."""
        if not self.chosen:
            agree = self._agree(pair, args, kwargs)
            if self.compile and not agree:
                raise TypeError(
                    "expected a closed-form KL and one scale for all sites to compile Pyro's "
                    "TraceMeanField_ELBO, got others: use Trace_ELBO, or compile=False"
                )
            ours = TraceMeanField_ELBO(self.elbo.num_particles)
            self.chosen.append(ours if agree else AsItIs(self.elbo))
        return self.chosen[0].score(pair, args, kwargs)

    def _agree(self, pair: Pair, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Whether ours and Pyro's give the same value for one draw with the same random numbers."""
        losses = []
        for objective in (TraceMeanField_ELBO(), AsItIs(pyro.infer.TraceMeanField_ELBO())):
            with torch.no_grad(), unchanged(pair.modules), warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # Pyro's, about the order of sites
                try:
                    losses.append(objective.score(pair, args, kwargs).loss)
                except (TypeError, ValueError):
                    return False
        ours, pyros = losses
        return torch.allclose(ours, pyros, rtol=1e-4, atol=1e-4)


@dataclass(frozen=True, eq=False)
class AsItIs(Objective):
    """Pyro's own estimate; it does not separate log-likelihood and KL."""

    elbo: Any

    def score(self, pair: Pair, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Estimate:
        """Return the estimate of a pair on a call."""
        loss = self.elbo.differentiable_loss(pair.model, pair.guide, *args, **kwargs)
        return Estimate(loss, None, None)
