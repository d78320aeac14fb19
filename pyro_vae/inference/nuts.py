"""Draws from the posterior by the No-U-Turn sampler."""

from typing import Any, cast

import torch
from pyro.infer import MCMC, NUTS
from torch import Tensor

from ..programs.checks import at_least
from ..programs.isolation import looking
from ..programs.modules import modules_of
from ..programs.sites import Program


def posterior_draws(
    model: Program, *args: Any, num_samples: int = 500, warmup_steps: int = 200, **kwargs: Any
) -> dict[str, Tensor]:
    """Draw from the exact posterior p(z | x) by the No-U-Turn sampler, as a reference for a guide.

    Returns the draws by site, of shape (num_samples, B, D). One chain moves the latents of all data
    together. It mixes well for up to some tens of dimensions in total, so pass few data. It runs
    eagerly in ``eval`` mode and is slow; latents must be continuous. The draws are autocorrelated:
    check ``pyro.ops.stats.effective_sample_size``.

    Source: Hoffman & Gelman, *The No-U-Turn Sampler*, 2014.

    Raises ``ValueError`` for fewer than one sample or warm-up step.
    """
    at_least(1, num_samples=num_samples, warmup_steps=warmup_steps)
    with looking(modules_of(model)), torch.enable_grad():
        mcmc = MCMC(
            NUTS(model), num_samples=num_samples, warmup_steps=warmup_steps, disable_progbar=True
        )
        mcmc.run(*args, **kwargs)
        return cast(dict[str, Tensor], mcmc.get_samples())
