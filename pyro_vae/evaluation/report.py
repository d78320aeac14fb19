"""How good a pair (model, guide) is on held-out data, how far to trust that number, and where the nats go."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any, TypeVar

import torch
from torch import Tensor
from tqdm import tqdm

from ..programs.graphs import GraphFunction
from ..programs.isolation import evaluation
from ..programs.scoring import draw
from ..programs.sites import Program, stochastic_sites
from .estimators import bounds, effective_sample_size, jackknife_bias, log_mean_exp, standard_error
from .importance import Block, count_rows, stream, take_rows
from .kl import KLDecomposition, kl_decomposition
from .latents import active_units, latent_means
from .pareto import pareto_smoothed

MEANS_BLOCK = 2048
"""How many data the guide sees at once for its means. Fixed, so that random numbers do not depend on the chunk size."""


Key = TypeVar("Key", int, str)


@dataclass(frozen=True)
class Evaluation:
    """The importance-weighted evaluation of B data with K samples each: tensors of shape (B,), in nats, on the CPU."""

    num_samples: int
    """K."""
    num_observed: int
    """The number of observed values per datum: pixels."""
    bounds: dict[int, Tensor]
    """The importance-weighted bounds for 1, 2, 4, ..., K samples: see :func:`pyro_vae.evaluation.estimators.bounds`."""
    distortion: Tensor
    """-E_q[log p(x | z)]."""
    standard_error: Tensor
    """Of ``log_px``, by Monte Carlo."""
    bias: Tensor
    """Of ``log_px``, by the jackknife: negative."""
    effective_sample_size: Tensor
    """Between 1 and K."""
    pareto_k: Tensor
    """The shape of the weights' tail."""
    smoothed_log_px: Tensor
    """The Pareto-smoothed estimate of log p(x)."""
    active_units: int
    """How many latent dimensions the guide uses."""
    kl: KLDecomposition | None
    """What E_x KL(q(z | x) || p(z)) is made of; None where it was left out."""

    @property
    def log_px(self) -> Tensor:
        """The estimate of log p(x): a lower bound in expectation."""
        return self.bounds[self.num_samples]

    @property
    def elbo(self) -> Tensor:
        """E_q[log p(x, z) - log q(z | x)]."""
        return self.bounds[1]

    @property
    def rate(self) -> Tensor:
        """KL(q(z | x) || p(z)) = -ELBO - distortion.

        Source: Alemi et al., *Fixing a Broken ELBO*, 2018.
        """
        return -self.elbo - self.distortion

    @property
    def jackknife_log_px(self) -> Tensor:
        """The estimate of log p(x) less its bias: no bound, but closer."""
        return self.log_px - self.bias

    @property
    def bits_per_dimension(self) -> Tensor:
        """-log2 p(x) per observed value; a code length where p(x) is a probability, not a density."""
        return -self.log_px / (self.num_observed * math.log(2))

    @property
    def trustworthy(self) -> Tensor:
        """Where Pareto k < min(1 - 1 / log10(K), 0.7) (Vehtari et al. 2024): elsewhere the error bar means little."""
        return self.pareto_k < min(1 - 1 / math.log10(max(self.num_samples, 2)), 0.7)

    def summary(self) -> dict[str, float]:
        """Means over the data, in nats per datum unless said, as numbers for a table or JSON.

        ``log_px_standard_error`` is the Monte-Carlo error of the mean over these data; ``log_px_data_error`` that of these
        data standing for all others.
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
    chunk_size: int = 2048,
    compile: bool | GraphFunction = False,
    kl_draws: int = 1000,
    progress: bool = False,
    **kwargs: Any,
) -> Evaluation:
    """Evaluate any pair of programs on data; the arguments and errors are those of :func:`pyro_vae.log_likelihood`.

    The weights of a few data at a time are in memory, whatever K and the size of the data; the same seed gives the same
    result for any ``chunk_size``, but for rounding. The encoder sees each datum once for the weights, once for the
    aggregate posterior and twice for the posterior means. The decomposition of the KL takes the density of ``kl_draws`` draws under
    the posterior of every datum (slow for autoregressive flows); 0 leaves it out. ``progress`` shows a bar.

    >>> from pyro_vae import VAE, Bernoulli, DiagonalNormal, StandardNormal, mlp
    >>> vae = VAE(StandardNormal(2), Bernoulli(mlp(2, 16, 64)), DiagonalNormal(mlp(64, 16, 4)))
    >>> result = evaluate(vae.model, vae.guide, torch.ones(3, 64), num_samples=100)
    >>> result.log_px.shape, result.pareto_k.shape, result.num_observed
    (torch.Size([3]), torch.Size([3]), 64)
    """
    bounds, rest = zip(
        *_statistics(model, guide, args, kwargs, num_samples, chunk_size, compile, progress),
        strict=True,
    )
    return Evaluation(
        num_samples=num_samples,
        num_observed=_num_observed(model, guide, args, kwargs),
        bounds=_joined(bounds),
        **_joined(rest),
        active_units=active_units(*(_latent_means(guide, args, kwargs) for _ in range(2))),
        kl=kl_decomposition(
            model, guide, *args, num_draws=kl_draws, chunk_size=chunk_size, **kwargs
        )
        if kl_draws
        else None,
    )


def _statistics(
    model: Program,
    guide: Program,
    args: Any,
    kwargs: Any,
    num_samples: int,
    chunk_size: int,
    compile: bool | GraphFunction,
    progress: bool,
) -> Iterator[tuple[dict[int, Tensor], dict[str, Tensor]]]:
    """What is kept of the weights of some data, all of their samples at once: the bounds by size, the rest by name."""
    with tqdm(total=count_rows(args, kwargs), unit="data", disable=not progress) as bar:
        for column in stream_columns(model, guide, args, kwargs, num_samples, chunk_size, compile):
            log_weight = column.log_weight.cpu().double()
            smoothed = pareto_smoothed(log_weight)
            yield (
                bounds(log_weight),
                {
                    "distortion": -column.log_likelihood.cpu().double().mean(0),
                    "standard_error": standard_error(log_weight),
                    "bias": jackknife_bias(log_weight),
                    "effective_sample_size": effective_sample_size(log_weight),
                    "pareto_k": smoothed.pareto_k,
                    "smoothed_log_px": log_mean_exp(smoothed.log_weight),
                },
            )
            bar.update(column.rows.stop - column.rows.start)


def stream_columns(
    model: Program,
    guide: Program,
    args: Any,
    kwargs: Any,
    num_samples: int,
    chunk_size: int,
    compile: bool | GraphFunction = False,
) -> Iterator[Block]:
    """Yield the weights of a few data at a time, all of their samples at once: see :func:`pyro_vae.evaluation.importance.stream`."""
    for rows, same in groupby(
        stream(model, guide, args, kwargs, num_samples, chunk_size, compile),
        key=lambda block: block.rows,
    ):
        blocks = list(same)
        log_weight = torch.cat([block.log_weight for block in blocks])
        yield Block(
            rows,
            slice(0, num_samples),
            log_weight,
            torch.cat([block.log_likelihood for block in blocks]),
        )


def _joined(parts: Iterable[dict[Key, Tensor]]) -> dict[Key, Tensor]:
    """The tensors of all parts, key by key."""
    columns: dict[Key, list[Tensor]] = {}
    for part in parts:
        for key, value in part.items():
            columns.setdefault(key, []).append(value)
    return {key: torch.cat(values) for key, values in columns.items()}


def _num_observed(model: Program, guide: Program, args: Any, kwargs: Any) -> int:
    """How many numbers the model observes of one datum."""
    with evaluation(model, guide):
        trace, _ = draw(model, guide, *take_rows(args, kwargs, slice(0, 1)))
    return sum(site["value"].numel() for site in stochastic_sites(trace) if site["is_observed"])


def _latent_means(guide: Program, args: Any, kwargs: Any) -> Tensor:
    """E_q[z | x] of all the data, (B, D), a block at a time."""
    starts = range(0, count_rows(args, kwargs), MEANS_BLOCK)
    chunks = (take_rows(args, kwargs, slice(start, start + MEANS_BLOCK)) for start in starts)
    return torch.cat([latent_means(guide, *chunk, **named) for chunk, named in chunks])
