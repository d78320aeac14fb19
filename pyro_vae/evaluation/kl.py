"""The aggregate posterior q(z) = 1/N sum_n q(z | x_n), and what the mean KL to the prior is made of.

1/N sum_n KL(q(z | x_n) || p(z)) = I(x; z) + KL(q(z) || p(z))
                                 = I(x; z) + KL(q(z) || prod_d q(z_d)) + sum_d KL(q(z_d) || p(z_d))   where p(z) = prod_d p(z_d)

Source: Hoffman & Johnson, *ELBO surgery*, 2016; Chen, Li, Grosse & Duvenaud, *Isolating Sources of Disentanglement in
Variational Autoencoders*, 2018.
"""

import math
from dataclasses import dataclass
from typing import Any, cast

import torch
from pyro import poutine
from pyro.poutine import Trace
from torch import Tensor
from torch.distributions import Independent, LowRankMultivariateNormal, MultivariateNormal, Normal

from ..programs.checks import check_density, no_subsample
from ..programs.isolation import evaluation
from ..programs.scoring import draw, terms, vectorized
from ..programs.sites import Program, data_dim, densities, log_prob_sum, nesting
from .importance import count_rows, take_rows


@dataclass(frozen=True)
class KLDecomposition:
    """The mean KL to the prior and its parts, in nats, each the mean over draws z_s ~ q(z).

    The parts sum to ``kl`` exactly. ``total_correlation`` and ``dimension_wise_kl`` are None unless the guide has one
    continuous site with known marginals (normal: diagonal, low-rank or full-rank), as has the prior, which is factorised.
    """

    kl: float
    """1/N sum_n KL(q(z | x_n) || p(z))."""
    mutual_information: float
    """I(x; z) = E[log q(z | x) - log q(z)], at most log N: of these data, below that of the population in expectation."""
    mutual_information_standard_error: float
    marginal_kl: float
    """KL(q(z) || p(z)), the gap between the aggregate posterior and the prior."""
    total_correlation: float | None
    """KL(q(z) || prod_d q(z_d))."""
    dimension_wise_kl: Tensor | None
    """KL(q(z_d) || p(z_d)), of shape (D,)."""

    def summary(self) -> dict[str, float]:
        """The numbers by name; the dimension-wise KL as its sum."""
        named = {
            "total": self.kl,
            "mutual_information": self.mutual_information,
            "mutual_information_standard_error": self.mutual_information_standard_error,
            "marginal": self.marginal_kl,
            "total_correlation": self.total_correlation,
            "dimension_wise": None
            if self.dimension_wise_kl is None
            else float(self.dimension_wise_kl.sum()),
        }
        return {name: value for name, value in named.items() if value is not None}


def kl_decomposition(
    model: Program,
    guide: Program,
    *args: Any,
    num_draws: int = 1000,
    chunk_size: int = 2048,
    **kwargs: Any,
) -> KLDecomposition:
    """Decompose the mean KL over all N data, from ``num_draws`` = S draws z_s ~ q(z | x_n), n uniform.

    log q(z_s) = log 1/N sum_n q(z_s | x_n) is summed over all N data, so nothing is biased as an estimate for *these* data
    (over a minibatch, as in training, I(x; z) would be at most the log of its size). The encoder sees each datum once more
    than it is drawn; the cost grows as S N D, the memory as S D and ``chunk_size``.

    Raises ``ValueError`` for fewer than two draws, or a guide with auxiliary sites or points (``Delta``).

    >>> from pyro_vae import VAE, Bernoulli, DiagonalNormal, StandardNormal, mlp
    >>> vae = VAE(StandardNormal(2), Bernoulli(mlp(2, 16, 64)), DiagonalNormal(mlp(64, 16, 4)))
    >>> parts = kl_decomposition(vae.model, vae.guide, torch.rand(30, 64).round())
    >>> abs(parts.kl - parts.mutual_information - parts.marginal_kl) < 1e-4
    True
    """
    if num_draws < 2:
        raise ValueError(f"expected num_draws of at least 2, got {num_draws}")
    N = count_rows(args, kwargs)
    index = torch.cat([torch.randperm(N) for _ in range(math.ceil(num_draws / N))])[:num_draws]
    with evaluation(model, guide), no_subsample(num_draws):
        traces = model_trace, guide_trace = draw(
            model, guide, *take_rows(args, kwargs, cast(Any, index))
        )
        check_density(guide_trace)
        _, log_prior, log_guide = terms(*traces, scaled=False)
        log_q, log_q_d = _log_aggregate(
            guide, args, kwargs, traces, max(1, 16 * chunk_size // num_draws)
        )
        log_p_d = _log_factors(model_trace, guide_trace)
    return KLDecomposition(
        kl=float((log_guide - log_prior).mean()),
        mutual_information=float((log_guide - log_q).mean()),
        mutual_information_standard_error=float((log_guide - log_q).std()) / math.sqrt(num_draws),
        marginal_kl=float((log_q - log_prior).mean()),
        total_correlation=None
        if log_q_d is None or log_p_d is None
        else float((log_q - log_q_d.sum(-1)).mean()),
        dimension_wise_kl=None
        if log_q_d is None or log_p_d is None
        else (log_q_d - log_p_d).mean(0).cpu(),
    )


def _log_aggregate(
    guide: Program, args: Any, kwargs: Any, traces: tuple[Trace, Trace], width: int
) -> tuple[Tensor, Tensor | None]:
    """Return log q(z_s), (S,), and where the marginals are known log q(z_sd), (S, D): sums over all data, ``width`` at a time."""
    N, dim, depth = count_rows(args, kwargs), data_dim(*traces), nesting(*traces)
    sites = densities(traces[1])
    if dim is None or any(site["infer"].get("is_auxiliary") for site in sites):
        raise ValueError(
            "expected a plate over the data around every site, and no auxiliary sites in the guide"
        )
    num_draws = sites[0]["value"].shape[dim - sites[0]["fn"].event_dim]
    total, totals = [], []
    for start in range(0, N, width):
        rows = slice(start, min(start + width, N))
        z = {site["name"]: _facing(site, dim, depth, rows.stop - rows.start) for site in sites}
        everywhere = poutine.condition(vectorized(guide, num_draws, depth), data=z)
        chunk_args, chunk_kwargs = take_rows(args, kwargs, rows)
        trace = poutine.trace(everywhere).get_trace(*chunk_args, **chunk_kwargs)
        total.append(log_prob_sum(densities(trace), {-1 - depth, dim}, scaled=False).logsumexp(1))
        q = marginals(trace.nodes[sites[0]["name"]]["fn"]) if len(sites) == depth == 1 else None
        if q is not None:
            totals.append(q.log_prob(z[sites[0]["name"]]).logsumexp(1))
    log_q_d = torch.stack(totals).logsumexp(0) - math.log(N) if totals else None
    return torch.stack(total).logsumexp(0) - math.log(N), log_q_d


def _facing(site: Any, dim: int, depth: int, num_data: int) -> Tensor:
    """A site's S draws, one per datum, as S particles each facing ``num_data`` data: (S, ..., num_data, ...)."""
    value, at = site["value"], dim - site["fn"].event_dim
    value = value.movedim(at, 0).unsqueeze(at)
    value = value.reshape(
        len(value), *[1] * (1 + depth + site["fn"].event_dim - value.ndim), *value.shape[1:]
    )
    shape = list(value.shape)
    shape[at] = num_data
    return cast(Tensor, value.expand(shape))


def _log_factors(model_trace: Trace, guide_trace: Trace) -> Tensor | None:
    """log p(z_sd), (S, D), where one site has a factorised prior."""
    latent = [model_trace.nodes[site["name"]] for site in densities(guide_trace)]
    if len(latent) > 1 or not isinstance(latent[0]["fn"], Independent):
        return None
    p = marginals(latent[0]["fn"])
    return None if p is None else cast(Tensor, p.log_prob(latent[0]["value"]))


def marginals(distribution: Any) -> Any:
    """The univariate marginals p(z_d) of a distribution on R^D, of event shape (), or None where they have no closed form."""
    if (
        isinstance(distribution, Independent)
        and len(distribution.event_shape) == 1
        and distribution.base_dist.event_shape == ()
    ):
        return distribution.base_dist
    if isinstance(distribution, MultivariateNormal | LowRankMultivariateNormal):
        return Normal(distribution.loc, distribution.variance.sqrt())
    return None
