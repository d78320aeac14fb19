"""One draw from the guide, scored by both programs: the quantity every objective is made of.

For z ~ q(z | x) the log-densities log p(x | z), log p(z) and log q(z | x), per datum. Their combination
log p(x | z) + log p(z) - log q(z | x) is the log importance weight; its mean over q is the ELBO.
"""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, NamedTuple

import pyro
from pyro import poutine
from pyro.infer.util import is_validation_enabled
from pyro.poutine import Trace
from torch import Tensor

from .checks import check_sites, check_support, dtypes_explained, same_shapes
from .isolation import own_parameters, store_untouched
from .sites import (
    PARTICLES,
    Program,
    data_dim,
    densities,
    log_prob_sum,
    particle_dim,
    stochastic_sites,
)


class Terms(NamedTuple):
    """The log-densities of a draw z ~ q(z | x), in nats, each of shape (B,) or (K, B).

    Programs without a plate around all their sites describe one datum: shape () or (K,).
    """

    log_likelihood: Tensor
    """log p(x | z), summed over the observed sites."""
    log_prior: Tensor
    """log p(z), summed over the latent sites of the model."""
    log_guide: Tensor
    """log q(z | x), summed over the sites of the guide."""

    @property
    def log_weight(self) -> Tensor:
        """log w = log p(x | z) + log p(z) - log q(z | x)."""
        return self.log_likelihood + self.log_prior - self.log_guide


def draw(
    model: Program,
    guide: Program,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    num_particles: int | None = None,
    nesting: int = 1,
) -> tuple[Trace, Trace]:
    """Run the guide, then the model at the guide's draw; return (model trace, guide trace).

    With ``num_particles`` = K both run once, inside a plate of K independent draws at dimension ``-1 - nesting``, left of
    the programs' own ``nesting`` plates: the encoder sees each datum once, whatever K.
    """
    programs = model, guide
    if num_particles is not None:
        model, guide = (vectorized(program, num_particles, nesting) for program in programs)
    validate = is_validation_enabled()
    with store_untouched(), dtypes_explained(args, kwargs, *programs):
        # innermost, so that no other handler sees the many messages of pyro.module; when validating, all see everything
        own = nullcontext if validate else own_parameters
        guide_trace = poutine.trace(_within(own, guide)).get_trace(*args, **kwargs)
        with same_shapes() if validate else nullcontext():
            model_trace = poutine.trace(
                poutine.replay(_within(own, model), trace=guide_trace)
            ).get_trace(*args, **kwargs)
    if validate:
        check_sites(model_trace, guide_trace)
        check_support(model_trace)
    return model_trace, guide_trace


def _within(context: Callable[[], Any], program: Program) -> Program:
    def run(*args: Any, **kwargs: Any) -> Any:
        with context():
            return program(*args, **kwargs)

    return run


def vectorized(program: Program, num_particles: int, nesting: int) -> Program:
    """The same program inside a plate of ``num_particles`` independent draws, at dimension ``-1 - nesting``."""

    def run(*args: Any, **kwargs: Any) -> Any:
        with pyro.plate(PARTICLES, num_particles, dim=-1 - nesting):
            return program(*args, **kwargs)

    return run


def terms(model_trace: Trace, guide_trace: Trace, *, scaled: bool = True) -> Terms:
    """Score a draw: see :class:`Terms`.

    With ``scaled``, for an ELBO: each site is multiplied by its ``poutine.scale``, and a ``pyro.factor`` of the guide counts
    as part of log q(z | x). Without, for importance weights: neither.
    """
    keep = {particle_dim(guide_trace), data_dim(model_trace, guide_trace)}
    sites = stochastic_sites(model_trace)
    return Terms(
        log_likelihood=log_prob_sum((site for site in sites if site["is_observed"]), keep, scaled),
        log_prior=log_prob_sum((site for site in sites if not site["is_observed"]), keep, scaled),
        log_guide=log_prob_sum(
            (stochastic_sites if scaled else densities)(guide_trace), keep, scaled
        ),
    )
