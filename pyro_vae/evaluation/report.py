"""The evaluation of a pair on held-out data: log p(x), its error, diagnostics, parts of the KL."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor
from tqdm import tqdm

from ..programs.pair import Pair
from ..programs.rows import Call, chunks
from ..programs.sites import Program
from .estimators import bounds, effective_sample_size, jackknife_bias, log_mean_exp, standard_error
from .importance import CHUNK_BYTES, Scorer, columns, scorer_of
from .kl import KLDecomposition, decompose
from .latents import active_units, site_means
from .pareto import pareto_smoothed

Key = TypeVar("Key", int, str)

MEANS_ROWS = 2048
"""The number of data in one run of the encoder for the posterior means."""


@dataclass(frozen=True)
class Evaluation:
    """The importance-weighted evaluation of B data with K samples each.

    Tensors have shape (B,) and are on the CPU. Log densities and their errors are in nats.
    """

    num_samples: int
    """The number of samples K."""
    num_observed: int
    """The number of observed values per datum, such as pixels."""
    bounds: dict[int, Tensor]
    """The importance-weighted bounds for 1, 2, 4, ..., K samples: see
    :func:`pyro_vae.evaluation.estimators.bounds`."""
    elbo: Tensor
    """E_q[log p(x, z) - log q(z | x)]. Where sites of the guide are summed out, their expectation
    is exact and outside the logarithm, so this is below ``bounds[1]``."""
    distortion: Tensor
    """-E_q[log p(x | z)]."""
    standard_error: Tensor
    """The Monte Carlo standard error of ``log_px``."""
    bias: Tensor
    """The jackknife estimate of the bias E[log_px] - log p(x), which is at most 0."""
    effective_sample_size: Tensor
    """The effective sample size 1 / sum_k W_k^2, between 1 and K."""
    pareto_k: Tensor
    """The shape k of the tail of the weights."""
    smoothed_log_px: Tensor
    """The Pareto-smoothed estimate of log p(x)."""
    active_units: int
    """The number of continuous latent dimensions that the guide uses."""
    kl: KLDecomposition | None
    """The parts of E_x KL(q(z | x) || p(z)); None for ``kl_draws=0``, or where sites are summed
    out."""

    @property
    def log_px(self) -> Tensor:
        """The estimate of log p(x): a lower bound in expectation."""
        return self.bounds[self.num_samples]

    @property
    def rate(self) -> Tensor:
        """KL(q(z | x) || p(z)) = -ELBO - distortion.

        Source: Alemi et al., *Fixing a Broken ELBO*, 2018.
        """
        return -self.elbo - self.distortion

    @property
    def jackknife_log_px(self) -> Tensor:
        """The estimate of log p(x) minus its bias. It is closer to log p(x), but not a bound."""
        return self.log_px - self.bias

    @property
    def bits_per_dimension(self) -> Tensor:
        """-log2 p(x) / D for D observed values; a code length only if p(x) is a probability."""
        return -self.log_px / (self.num_observed * math.log(2))

    @property
    def trustworthy(self) -> Tensor:
        """Whether Pareto k < min(1 - 1 / log10(K), 0.7) (Vehtari et al. 2024).

        Where it is false, the standard error is not reliable.
        """
        return self.pareto_k < min(1 - 1 / math.log10(max(self.num_samples, 2)), 0.7)

    def summary(self) -> dict[str, float]:
        """Return means over the data for a table or JSON, in nats per datum by default.

        ``log_px_standard_error`` is the Monte Carlo error of the mean over these data.
        ``log_px_data_error`` is the standard error of this mean as an estimate for all data.
        """
        B = len(self.log_px)
        names = (
            "log_px",
            "elbo",
            "rate",
            "distortion",
            "bias",
            "jackknife_log_px",
            "smoothed_log_px",
        )
        means = {
            name: getattr(self, name)
            for name in (*names, "bits_per_dimension", "effective_sample_size")
        }
        return {
            "num_data": B,
            "num_samples": self.num_samples,
            **{name: float(value.mean()) for name, value in means.items()},
            "log_px_standard_error": float(self.standard_error.square().sum().sqrt()) / B,
            "log_px_data_error": float(self.log_px.std()) / math.sqrt(B) if B > 1 else math.nan,
            "trustworthy_share": float(self.trustworthy.double().mean()),
            "active_units": self.active_units,
            **(
                {}
                if self.kl is None
                else {f"kl_{name}": value for name, value in self.kl.summary().items()}
            ),
        }


def evaluate(
    model: Program,
    guide: Program,
    *args: Any,
    num_samples: int,
    chunk_bytes: int = CHUNK_BYTES,
    compile: bool | Scorer = False,
    rows: Sequence[int | str] | None = None,
    kl_draws: int = 1000,
    progress: bool = False,
    **kwargs: Any,
) -> Evaluation:
    """Evaluate any pair of programs on data.

    The arguments and errors are those of :func:`pyro_vae.log_weights`. For any K and any number of
    data, only the weights of a few data are in memory at a time. The same seed gives the same
    result for any ``chunk_bytes``, except for rounding. The encoder runs on each datum once for the
    weights, once for the aggregate posterior and twice for the posterior means. The decomposition
    of the KL computes the density of ``kl_draws`` draws under the posterior of every datum. This is
    slow for autoregressive flows; ``kl_draws=0`` skips it. ``progress`` shows a bar.

    >>> result = evaluate(vae.model, vae.guide, torch.ones(3, 64), num_samples=100)
    >>> result.log_px.shape, result.pareto_k.shape, result.num_observed
    (torch.Size([3]), torch.Size([3]), 64)
    """
    scorer = scorer_of(model, guide, compile, rows)
    call = (args, kwargs)
    bounds, rest = zip(*_statistics(scorer, call, num_samples, chunk_bytes, progress), strict=True)
    pair = scorer.pair
    with pair.looking():
        found = pair.sliced(call)
    summed = found.guide_values or found.model_values
    twice = [_latent_means(pair, call) for _ in range(2)]
    return Evaluation(
        num_samples=num_samples,
        num_observed=found.observed,
        bounds=_joined(bounds),
        **_joined(rest),
        active_units=_active(*twice),
        kl=decompose(pair, call, kl_draws, chunk_bytes) if kl_draws and not summed else None,
    )


def _statistics(
    scorer: Scorer, call: Call, num_samples: int, chunk_bytes: int, progress: bool
) -> Iterator[tuple[dict[int, Tensor], dict[str, Tensor]]]:
    """The statistics of the weights of a few data: the bounds by size, the rest by name."""
    with tqdm(unit="data", disable=not progress) as bar:
        for column in columns(scorer, call, num_samples, chunk_bytes):
            log_weight = column.log_weight.cpu().double()
            smoothed = pareto_smoothed(log_weight)
            yield (
                bounds(log_weight),
                {
                    "elbo": column.elbo.cpu().double().mean(0),
                    "distortion": -column.log_likelihood.cpu().double().mean(0),
                    "standard_error": standard_error(log_weight),
                    "bias": jackknife_bias(log_weight),
                    "effective_sample_size": effective_sample_size(log_weight),
                    "pareto_k": smoothed.pareto_k,
                    "smoothed_log_px": log_mean_exp(smoothed.log_weight),
                },
            )
            bar.update(column.rows.stop - column.rows.start)


def _joined(parts: Iterable[dict[Key, Tensor]]) -> dict[Key, Tensor]:
    """Concatenate the tensors of all parts, key by key."""
    columns: dict[Key, list[Tensor]] = {}
    for part in parts:
        for key, value in part.items():
            columns.setdefault(key, []).append(value)
    return {key: torch.cat(values) for key, values in columns.items()}


def _active(means: Tensor | None, again: Tensor | None) -> int:
    return 0 if means is None else active_units(means, again)


def _latent_means(pair: Pair, call: Call) -> Tensor | None:
    """E_q[z | x] of all the data, (B, D), some rows at a time; None without continuous latents."""
    with pair.looking():
        rows = pair.sliced(call).rows
        parts = (rows.take(call, part) for part in chunks(rows.size, MEANS_ROWS))
        means = [site_means(pair.guide_trace(part), pair.structure(part)) for part in parts]
    known = [mean for mean in means if mean is not None]
    return torch.cat(known) if known else None
