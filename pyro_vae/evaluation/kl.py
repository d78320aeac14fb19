"""The aggregate posterior q(z) = 1/N sum_n q(z | x_n), and the parts of the mean KL to the prior.

1/N sum_n KL(q(z | x_n) || p(z)) = I(x; z) + KL(q(z) || p(z)),  and for p(z) = prod_d p(z_d)
KL(q(z) || p(z)) = KL(q(z) || prod_d q(z_d)) + sum_d KL(q(z_d) || p(z_d)).

Source: Hoffman & Johnson, *ELBO surgery*, 2016; Chen, Li, Grosse & Duvenaud, *Isolating Sources of
Disentanglement in Variational Autoencoders*, 2018.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from pyro.poutine import Trace
from torch import Tensor
from torch.distributions import Independent, LowRankMultivariateNormal, MultivariateNormal, Normal

from ..programs.checks import at_least
from ..programs.draw import Draw
from ..programs.pair import Pair
from ..programs.rows import Call, Rows, chunks
from ..programs.sites import Program, Site, stochastic_sites
from ..programs.structure import Structure
from .importance import CHUNK_BYTES


@dataclass(frozen=True)
class KLDecomposition:
    """The mean KL to the prior and its parts, in nats; each is a mean over draws z_s ~ q(z).

    The parts sum to ``kl`` exactly. ``total_correlation`` and ``dimension_wise_kl`` are None unless
    the guide has one continuous site with known marginals (a diagonal, low-rank or full-rank
    normal) and the prior is factorised with known marginals.
    """

    kl: float
    """1/N sum_n KL(q(z | x_n) || p(z))."""
    mutual_information: float
    """I(x; z) = E[log q(z | x) - log q(z)] for these N data; it is at most log N.

    In expectation it is below the mutual information of the population."""
    mutual_information_standard_error: float
    marginal_kl: float
    """KL(q(z) || p(z)), the gap between the aggregate posterior and the prior."""
    total_correlation: float | None
    """KL(q(z) || prod_d q(z_d))."""
    dimension_wise_kl: Tensor | None
    """KL(q(z_d) || p(z_d)), of shape (D,)."""

    def summary(self) -> dict[str, float]:
        """Return the numbers by name; the dimension-wise KL is summed over the dimensions."""
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
    chunk_bytes: int = CHUNK_BYTES,
    rows: Sequence[int | str] | None = None,
    **kwargs: Any,
) -> KLDecomposition:
    """Decompose the mean KL over all N data, from S = ``num_draws`` draws z_s ~ q(z | x_n).

    The sum in log q(z_s) = log 1/N sum_n q(z_s | x_n) is over all N data, so every estimate is
    unbiased for *these* data. (Over a minibatch, I(x; z) would be at most the log of the batch
    size.) The encoder runs twice on each drawn datum, and once on all data. The time is O(S N D);
    the memory is O(S D) plus ``chunk_bytes``.

    Raises ``ValueError`` for fewer than two draws or sites that are summed out; the other errors
    are those of :func:`pyro_vae.log_weights`.

    >>> parts = kl_decomposition(vae.model, vae.guide, torch.rand(30, 64).round())
    >>> abs(parts.kl - parts.mutual_information - parts.marginal_kl) < 1e-4
    True
    """
    return decompose(Pair(model, guide, rows=rows), (args, kwargs), num_draws, chunk_bytes)


def decompose(pair: Pair, call: Call, num_draws: int, chunk_bytes: int) -> KLDecomposition:
    """The same as :func:`kl_decomposition`, for a pair and a call."""
    at_least(2, num_draws=num_draws)
    with pair.looking():
        rows = pair.sliced(call).rows
        N = rows.size
        index = torch.cat([torch.randperm(N) for _ in range(math.ceil(num_draws / N))])[:num_draws]
        drawn = rows.take(call, index)
        draws = pair.draw(*drawn)
        check_drawn(draws.structure)
        # a draw's terms include the scales of sites and the guide's factors; a KL has neither
        log_guide = pair.score_guide(drawn, draws.values, 1).reshape(-1)
        log_prior = pair.score_model(drawn, draws.values, 1)[1].reshape(-1)
        log_q, log_q_d = _log_aggregate(pair, call, rows, draws, chunk_bytes)
        log_p_d = _log_factors(draws)
    correlation = None
    by_dimension = None
    if log_q_d is not None and log_p_d is not None:
        correlation = float((log_q - log_q_d.sum(-1)).mean())
        by_dimension = (log_q_d - log_p_d).mean(0).cpu()
    return KLDecomposition(
        kl=float((log_guide - log_prior).mean()),
        mutual_information=float((log_guide - log_q).mean()),
        mutual_information_standard_error=float((log_guide - log_q).std()) / math.sqrt(num_draws),
        marginal_kl=float((log_q - log_prior).mean()),
        total_correlation=correlation,
        dimension_wise_kl=by_dimension,
    )


def check_drawn(found: Structure) -> None:
    """Raise ``ValueError`` unless every latent site is drawn and has a density for each datum."""
    if found.refusal is not None:
        raise ValueError(found.refusal)
    if summed := [*found.guide_values, *found.model_values]:
        raise ValueError(f"expected no site that is marked to be summed out, got {summed}")


def _log_aggregate(
    pair: Pair, call: Call, rows: Rows, draws: Draw, chunk_bytes: int
) -> tuple[Tensor, Tensor | None]:
    """Return log q(z_s), (S,), and log q(z_sd), (S, D), or None without known marginals.

    The sums are over all data, some rows at a time.
    """
    z = {name: value[0].unsqueeze(1) for name, value in draws.values.items()}  # (S, 1, ...)
    S = next(iter(z.values())).shape[0]
    total = []
    totals = []
    single = draws.structure.single and draws.structure.plate is not None
    bytes_of_row = 8 * S * max(value[0].numel() for value in z.values())
    for part in chunks(rows.size, max(1, chunk_bytes // bytes_of_row)):
        some = rows.take(call, part)
        size = part.stop - part.start
        values = {name: v.expand(-1, size, *v.shape[2:]) for name, v in z.items()}
        total.append(pair.score_guide(some, values, S).logsumexp(1))
        q = marginals(_only_site(pair.guide_trace(some))["fn"]) if single else None
        if q is not None:
            (value,) = values.values()
            totals.append(q.log_prob(value).logsumexp(1))
    log_q_d = torch.stack(totals).logsumexp(0) - math.log(rows.size) if totals else None
    return torch.stack(total).logsumexp(0) - math.log(rows.size), log_q_d


def _only_site(trace: Trace) -> Site:
    (site,) = stochastic_sites(trace)
    return site


def _log_factors(draws: Draw) -> Tensor | None:
    """log p(z_sd), (S, D), if one site has a factorised prior; otherwise None."""
    if not draws.structure.single:
        return None
    site = draws.model_traces[0].nodes[_only_site(draws.guide_traces[0])["name"]]
    p = marginals(site["fn"]) if isinstance(site["fn"], Independent) else None
    return None if p is None else cast(Tensor, p.log_prob(site["value"]))


def marginals(distribution: Any) -> Any:
    """Return the univariate marginals p(z_d) of a distribution on R^D, with event shape ().

    Return None where they have no closed form.
    """
    if (
        isinstance(distribution, Independent)
        and len(distribution.event_shape) == 1
        and distribution.base_dist.event_shape == ()
    ):
        return distribution.base_dist
    if isinstance(distribution, MultivariateNormal | LowRankMultivariateNormal):
        return Normal(distribution.loc, distribution.variance.sqrt())
    return None
