"""Disentanglement: the information of each latent dimension about each known factor."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from pyro import poutine
from torch import Tensor

from ..programs.checks import at_least
from ..programs.isolation import looking
from ..programs.modules import modules_of
from ..programs.sites import Program, base_name, is_auxiliary, is_factor, stochastic_sites
from .kl import marginals

DRAWS = 20
"""The number of draws whose density under every datum is computed at once."""


@dataclass(frozen=True)
class FactorInformation:
    """The mutual information of D latent dimensions and K factors, in nats."""

    information: Tensor
    """I(z_d; v_k), (D, K)."""
    entropy: Tensor
    """H(v_k), (K,)."""

    @property
    def gaps(self) -> Tensor:
        """(I(z_a; v_k) - I(z_b; v_k)) / H(v_k) of the two most informative dimensions, (K,)."""
        best = (self.information / self.entropy).topk(2, dim=0).values
        return best[0] - best[1]

    @property
    def mig(self) -> float:
        """The mutual information gap, the mean of the gaps.

        It is 1 if one dimension determines each factor and no other dimension has information about
        it. It is 0 if the two most informative dimensions have equal information.
        """
        return float(self.gaps.mean())


def factor_information(
    guide: Program, *args: Any, factors: Tensor, num_draws: int = 1000, **kwargs: Any
) -> FactorInformation:
    """Estimate I(z_d; v_k) between the dimensions of z ~ q(z | x_n) and known factors v(x_n).

    I(z_d; v_k) = E[log q(z_d | v_k) - log q(z_d)], where q(z_d) = 1/N sum_n q(z_d | x_n), and
    q(z_d | v_k) is the same mean over the data with this value of the factor. Both means are over
    all the data, so the estimate from ``num_draws`` draws is unbiased for *these* data. ``factors``
    holds integers (N, K), one row per datum.

    Source: Chen, Li, Grosse & Duvenaud, *Isolating Sources of Disentanglement in Variational
    Autoencoders*, 2018.

    Raises ``ValueError`` unless there is one row of integers per datum with at least two values in
    each column, and the guide has one continuous site of at least two dimensions with known
    marginals (a diagonal, low-rank or full-rank normal).

    >>> x, factors = torch.rand(40, 64).round(), torch.arange(40).unsqueeze(-1) % 2
    >>> factor_information(vae.guide, x, factors=factors).information.shape
    torch.Size([2, 1])
    """
    at_least(1, num_draws=num_draws)
    with looking(modules_of(guide)):
        q = _marginals(guide, args, kwargs)
        N = q.batch_shape[0]
        classes = _classes(factors, N).to(q.mean.device)
        member = torch.zeros(N, int(classes.max()) + 1).to(q.mean).scatter_(1, classes, 1.0)
        copies = math.ceil(num_draws / N)
        chosen = torch.randperm(copies * N)[:num_draws]
        z = q.sample((copies,)).flatten(0, 1)[chosen]
        own = classes[chosen % N]
        parts = zip(z.split(DRAWS), own.split(DRAWS), strict=True)
        total = torch.stack([_log_ratio(q, *part, member) for part in parts]).sum(0)
    share = member.mean(0)
    entropy = torch.stack([-share[column].log().mean() for column in classes.unbind(1)])
    return FactorInformation((total / num_draws).cpu(), entropy.cpu())


def _log_ratio(q: Any, z: Tensor, own: Tensor, member: Tensor) -> Tensor:
    """sum_s log q(z_sd | v_k) - log q(z_sd), (D, K), with v_k the factor of the draw's datum."""
    log_prob = q.log_prob(z.unsqueeze(1))  # (S, N, D)
    density = (log_prob - log_prob.amax(1, keepdim=True)).exp()
    given = torch.einsum("snd,nc->sdc", density, member) / member.sum(0)
    index = own.unsqueeze(1).expand(-1, z.shape[1], -1)
    ratio: Tensor = given.gather(2, index).log() - density.mean(1).log().unsqueeze(-1)
    return ratio.sum(0)


def _marginals(guide: Program, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The distributions q(z_d | x_n), of batch shape (N, D)."""
    sites = [
        site
        for site in stochastic_sites(poutine.trace(guide).get_trace(*args, **kwargs))
        if not is_factor(site) and not is_auxiliary(site)
    ]
    q = marginals(sites[0]["fn"]) if len(sites) == 1 else None
    if q is None or len(q.batch_shape) != 2 or q.batch_shape[1] < 2:
        raise ValueError(
            "expected a guide with one continuous site of at least two dimensions, whose marginals "
            f"are known, got {[(base_name(s['fn']), tuple(s['fn'].event_shape)) for s in sites]}"
        )
    return q


def _classes(factors: Tensor, N: int) -> Tensor:
    """The values of all factors, numbered from 0 in one sequence over all factors, (N, K)."""
    if factors.ndim != 2 or len(factors) != N or factors.is_floating_point():
        raise ValueError(
            f"expected factors of integers, one row for each of {N} data, "
            f"got {factors.dtype} of shape {tuple(factors.shape)}"
        )
    columns = [torch.unique(column, return_inverse=True)[1] for column in factors.unbind(1)]
    sizes = torch.tensor([int(column.max()) + 1 for column in columns])
    if int(sizes.min()) < 2:
        raise ValueError(
            f"expected at least two values of each factor, got {sizes.tolist()}: leave it out"
        )
    return torch.stack(columns, 1) + (sizes.cumsum(0) - sizes).to(factors.device)
