"""The gap between log p(x) and the ELBO, divided into the parts of the family and the encoder.

log p(x) - ELBO = [log p(x) - max_q ELBO(q)] + [max_q ELBO(q) - ELBO(q(z | x))]
                =     approximation gap      +        amortisation gap

The best q is found for each datum separately.

Source: Cremer, Li & Duvenaud, *Inference Suboptimality in Variational Autoencoders*, 2018.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal
from tqdm import tqdm

from ..families.full_rank import FullRank
from ..programs.checks import at_least
from ..programs.pair import Pair
from ..programs.sites import Program
from ..programs.unconstrained import Unconstrained
from .estimators import log_mean_exp
from .importance import Scorer, columns

START_DRAWS = 64  # draws from the guide; the local q starts from their moments


class DiagonalLocal(nn.Module):
    """q_b = N(loc_b, diag(scale_b^2)) for each of B data, in the unconstrained latents.

    It starts from the mean and standard deviation of ``draws`` (K, B, D).
    """

    def __init__(self, draws: Tensor) -> None:
        super().__init__()
        self.loc = nn.Parameter(draws.mean(0))
        self.log_scale = nn.Parameter(draws.std(0).log())

    def forward(self) -> Distribution:
        return Independent(Normal(self.loc, self.log_scale.exp()), 1)


class FullRankLocal(DiagonalLocal):
    """q_b = N(loc_b, L_b L_b') with L_b lower triangular.

    L_b is the diagonal matrix of scales of :class:`DiagonalLocal` times a unit lower triangular
    matrix.
    """

    def __init__(self, draws: Tensor) -> None:
        super().__init__(draws)
        self.below = nn.Parameter(torch.zeros(*self.loc.shape, self.loc.shape[-1]).to(self.loc))

    def forward(self) -> Distribution:
        unit = self.below.tril(-1) + torch.eye(self.loc.shape[-1]).to(self.loc)
        return FullRank(self.loc, scale_tril=self.log_scale.exp().unsqueeze(-1) * unit)


Family = Callable[[Tensor], nn.Module]


FAMILIES: dict[str, Family] = {"diagonal": DiagonalLocal, "full_rank": FullRankLocal}


@dataclass(frozen=True)
class Gaps:
    """log p(x), the best ELBO and the guide's ELBO, (B,) in nats, and their differences."""

    log_px: Tensor
    """The estimate of log p(x)."""
    local_elbo: Tensor
    """The ELBO of the best q of the family, found for this datum."""
    elbo: Tensor
    """The ELBO of the guide."""

    @property
    def approximation(self) -> Tensor:
        """log p(x) - local ELBO: the loss because the posterior is not in the family."""
        return self.log_px - self.local_elbo

    @property
    def amortisation(self) -> Tensor:
        """Local ELBO - ELBO: the loss because the encoder does not find the best q.

        It may be negative where the guide is more flexible than the family.
        """
        return self.local_elbo - self.elbo


@dataclass(frozen=True)
class LocalFit:
    """The optimisation that finds the best q of a ``family`` for each datum.

    Adam starts from the guide's moments; its learning rate decreases from ``lr`` to zero. The
    gradient is the path derivative, which has no noise where q is the posterior (Roeder, Wu &
    Duvenaud, *Sticking the Landing*, 2017). Each of ``num_steps`` steps takes ``num_particles``
    draws; the final ELBO takes ``num_samples`` draws.

    Raises ``ValueError`` for counts below one, or latents that are not continuous.
    """

    family: Family = DiagonalLocal
    num_steps: int = 300
    lr: float = 0.1
    num_particles: int = 8
    num_samples: int = 500

    def __post_init__(self) -> None:
        at_least(
            1,
            num_steps=self.num_steps,
            num_particles=self.num_particles,
            num_samples=self.num_samples,
        )

    def elbo(
        self,
        model: Program,
        guide: Program,
        *args: Any,
        chunk_draws: int = 2048,
        progress: bool = False,
        **kwargs: Any,
    ) -> Tensor:
        """Return max_q E_q[log p(x, z) - log q(z)] for each datum, (B,), in nats.

        >>> LocalFit(num_steps=5).elbo(vae.model, vae.guide, torch.ones(3, 64)).shape
        torch.Size([3])
        """
        pair = Pair(model, guide)
        elbos = []
        parts = pair.parts((args, kwargs), chunk_draws // self.num_particles)
        for call in tqdm(parts, unit="chunk", disable=not progress):
            with pair.looking():
                space = Unconstrained(pair, call)
                with pyro.validation_enabled(False):  # the programs were checked already
                    q = self.fit(space)
                    times = -(-self.num_samples // self.num_particles)
                    draws = [self._log_weight(space, q()) for _ in range(times)]
            elbos.append(torch.cat(draws)[: self.num_samples].mean(0))
        return torch.cat(elbos)

    @torch.enable_grad()
    def fit(self, space: Unconstrained) -> nn.Module:
        """Return a module of the family, with the best q of each datum."""
        q = self.family(space.draw_guide(START_DRAWS).detach())
        optimiser = torch.optim.Adam(q.parameters(), lr=self.lr)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, self.num_steps)
        for _ in range(self.num_steps):
            loss = -self._log_weight(space, q(), detached(q)).mean(0).sum()
            for parameter, gradient in zip(
                q.parameters(), torch.autograd.grad(loss, list(q.parameters())), strict=True
            ):
                parameter.grad = gradient  # the programs' parameters get no gradient
            optimiser.step()
            schedule.step()
        return q

    def _log_weight(
        self, space: Unconstrained, q: Distribution, score: Distribution | None = None
    ) -> Tensor:
        """log p(x, z) - log q(z) at draws z ~ q, (K, B); ``score`` gives log q if it is given."""
        u = q.rsample((self.num_particles,))
        log_likelihood, log_prior = space.log_joint(u)
        return log_likelihood + log_prior - (score or q).log_prob(u)


def detached(module: nn.Module) -> Any:
    """The module's output, computed with detached parameters."""
    return torch.func.functional_call(
        module, {name: p.detach() for name, p in module.named_parameters()}, ()
    )


def gaps(
    model: Program,
    guide: Program,
    *args: Any,
    fit: LocalFit | None = None,
    log_px: Tensor | None = None,
    num_samples: int = 1000,
    chunk_draws: int = 2048,
    progress: bool = False,
    **kwargs: Any,
) -> Gaps:
    """Decompose log p(x) - ELBO for each datum.

    ``fit`` defines the family of the best q, and how it is found. The guide's ELBO is the mean of
    ``num_samples`` log weights. These weights also estimate log p(x), unless a better estimate
    ``log_px`` (B,) is given (with more samples, or by :class:`pyro_vae.evaluation.ais.AIS`).

    The errors are those of :class:`LocalFit` and :func:`pyro_vae.log_weights`.

    Source: Cremer, Li & Duvenaud, *Inference Suboptimality in Variational Autoencoders*, 2018.

    >>> fit = LocalFit(FullRankLocal, num_steps=5)
    >>> gaps(vae.model, vae.guide, torch.ones(3, 64), fit=fit).amortisation.shape
    torch.Size([3])
    """
    blocks = columns(Scorer(model, guide), (args, kwargs), num_samples)
    means = [(log_mean_exp(block.log_weight), block.log_weight.mean(0)) for block in blocks]
    weighted, elbo = (torch.cat(part) for part in zip(*means, strict=True))
    local = fit or LocalFit()
    local_elbo = local.elbo(
        model, guide, *args, chunk_draws=chunk_draws, progress=progress, **kwargs
    )
    return Gaps(weighted if log_px is None else log_px, local_elbo, elbo)
