"""Importance weighting: an honest log p(x), with one weight per datum.

w_k = p(x, z_k) / q(z_k | x),  z_k ~ q(z | x),     log p(x) = log E[w] >= E[log 1/K sum_k w_k].
"""

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple, cast

import torch
from pyro import poutine
from torch import Tensor

from ..programs.checks import check_density, check_latents, no_subsample
from ..programs.graphs import GraphFunction
from ..programs.isolation import evaluation
from ..programs.scoring import draw, vectorized
from ..programs.sites import Program, data_dim, densities, log_prob_sum, nesting, stochastic_sites

GUIDE_BLOCK = 16384
"""How many draws (samples x data) the guide makes in one pass. Fixed, so that a seed gives one result for any chunk size."""


Joint = Callable[..., tuple[Tensor, Tensor]]


class Block(NamedTuple):
    """The weights of some data and some samples: ``log_weight[k, b]`` belongs to sample ``samples[k]`` of datum ``rows[b]``."""

    rows: slice
    samples: slice
    log_weight: Tensor
    log_likelihood: Tensor
    """The part log p(x | z) of the log weight."""


def log_weights(
    model: Program,
    guide: Program,
    *args: Any,
    num_samples: int,
    chunk_size: int = 2048,
    compile: bool | GraphFunction = False,
    **kwargs: Any,
) -> Tensor:
    """Return the log importance weights log w_kb = log p(x_b, z_kb) - log q(z_kb | x_b), z_kb ~ q(z | x_b), in nats.

    ``model`` and ``guide`` are any two programs, called with ``args`` and ``kwargs``, whose sites all lie in one plate
    over the data; the tensors among the arguments have one row per datum. The result has shape (K, B), K being
    ``num_samples``. At most ``chunk_size`` pairs of a sample and a datum are decoded at once; the result does not
    depend on it but for rounding. Modules are used in ``eval`` mode. With ``compile`` the model's part is one compiled
    graph, which is worth its few seconds from some million pairs on; pass :func:`compiled_joint` for more than one call.

    A ``pyro.factor`` of the guide is part of no weight.

    Raises ``ValueError`` for K < 1, programs without a plate over the data, sites that do not match, a guide that draws
    points (``Delta``), which have no density, or a plate that draws a subsample by itself.

    >>> from pyro_vae import VAE, Bernoulli, DiagonalNormal, StandardNormal, mlp
    >>> vae = VAE(StandardNormal(2), Bernoulli(mlp(2, 16, 64)), DiagonalNormal(mlp(64, 16, 4)))
    >>> log_weights(vae.model, vae.guide, torch.ones(3, 64), num_samples=10).shape
    torch.Size([10, 3])
    """
    blocks = list(stream(model, guide, args, kwargs, num_samples, chunk_size, compile))
    out = blocks[0].log_weight.new_empty(num_samples, blocks[-1].rows.stop)
    for block in blocks:
        out[block.samples, block.rows] = block.log_weight
    return out


def log_likelihood(
    model: Program,
    guide: Program,
    *args: Any,
    num_samples: int,
    chunk_size: int = 2048,
    compile: bool | GraphFunction = False,
    **kwargs: Any,
) -> Tensor:
    """Return the importance-weighted estimate of log p(x_b), in nats, of shape (B,).

    log p(x) ~ log 1/K sum_k w_k, a lower bound of log p(x) in expectation, which tightens as K = ``num_samples`` grows.
    Memory does not grow with K. The arguments and errors are those of :func:`log_weights`.

    Source: Rezende, Mohamed & Wierstra 2014, appendix E; Burda, Grosse & Salakhutdinov 2015.

    >>> from pyro_vae import VAE, Bernoulli, DiagonalNormal, StandardNormal, mlp
    >>> vae = VAE(StandardNormal(2), Bernoulli(mlp(2, 16, 64)), DiagonalNormal(mlp(64, 16, 4)))
    >>> log_likelihood(vae.model, vae.guide, torch.ones(3, 64), num_samples=10).shape
    torch.Size([3])
    """
    totals: dict[int, Tensor] = {}
    for block in stream(model, guide, args, kwargs, num_samples, chunk_size, compile):
        total = block.log_weight.logsumexp(0)
        first = block.rows.start
        totals[first] = torch.logaddexp(totals[first], total) if first in totals else total
    return torch.cat(list(totals.values())) - math.log(num_samples)


def stream(
    model: Program,
    guide: Program,
    args: Any,
    kwargs: Any,
    num_samples: int,
    chunk_size: int,
    compile: bool | GraphFunction = False,
) -> Iterator[Block]:
    """Yield all the weights, block by block: the data in order, and within them the samples."""
    if num_samples < 1 or chunk_size < 1:
        raise ValueError(
            f"expected num_samples and chunk_size of at least 1, got {num_samples} and {chunk_size}"
        )
    num_data = count_rows(args, kwargs)
    with evaluation(model, guide), no_subsample(1):
        dim, depth = _check(model, guide, *take_rows(args, kwargs, slice(0, 1)))
    joint: Joint = compiled_joint(model) if compile is True else compile or partial(_joint, model)
    for rows, samples in _grid(num_data, num_samples):
        with evaluation(model, guide), no_subsample(rows.stop - rows.start):
            num = samples.stop - samples.start
            log_weight, log_likelihood = _block(
                model, guide, *take_rows(args, kwargs, rows), num, chunk_size, dim, depth, joint
            )
        yield Block(rows, samples, log_weight, log_likelihood)


def _grid(num_data: int, num_samples: int) -> Iterator[tuple[slice, slice]]:
    """Blocks of at most ``GUIDE_BLOCK`` pairs: as many samples of a datum as fit, then as many data."""
    height = min(num_samples, GUIDE_BLOCK)
    width = GUIDE_BLOCK // height
    for row in range(0, num_data, width):
        for sample in range(0, num_samples, height):
            yield (
                slice(row, min(row + width, num_data)),
                slice(sample, min(sample + height, num_samples)),
            )


def _check(model: Program, guide: Program, args: Any, kwargs: Any) -> tuple[int, int]:
    """Return the dimension of the data plate and the depth of all plates, from a look at the first datum."""
    traces = draw(model, guide, args, kwargs)
    check_latents(traces[1])
    check_density(traces[1])
    dim = data_dim(*traces)
    sizes = {
        frame.size
        for t in traces
        for s in stochastic_sites(t)
        for frame in s["cond_indep_stack"]
        if frame.dim == dim
    }
    if dim is None or not sizes <= {1, -1}:  # -1: a plate that was given no size
        raise ValueError(
            "expected a plate with one row per datum around every sample site of model and guide, "
            f"got {'none' if dim is None else f'sizes {sorted(sizes)} for one datum'}"
        )
    return dim, nesting(*traces)


def _block(
    model: Program,
    guide: Program,
    args: Any,
    kwargs: Any,
    num_samples: int,
    chunk_size: int,
    dim: int,
    depth: int,
    joint: Joint,
) -> tuple[Tensor, Tensor]:
    """Return log w and log p(x | z), both (K, b), of one block: one pass of the guide, then the model chunk by chunk."""
    guide_trace = poutine.trace(vectorized(guide, num_samples, depth)).get_trace(*args, **kwargs)
    latents = [site for site in densities(guide_trace) if not site["infer"].get("is_auxiliary")]
    keep: set[int | None] = {-1 - depth, dim}
    log_weight = -log_prob_sum(densities(guide_trace), keep, scaled=False)
    log_likelihood = torch.empty_like(log_weight)
    num_data = log_weight.shape[1]
    for samples, rows in _chunks(num_samples, num_data, chunk_size):
        z = {site["name"]: _narrow(site, samples, -1 - depth, rows, dim) for site in latents}
        log_px, log_pz = joint(
            dim, depth, samples.stop - samples.start, z, *take_rows(args, kwargs, rows)
        )
        log_likelihood[samples, rows] = log_px
        log_weight[samples, rows] += log_pz
    return log_weight + log_likelihood, log_likelihood


def compiled_joint(model: Program) -> GraphFunction:
    """Return log p(x | z) and log p(z) of a model as a graph, which several calls with ``compile=`` can share."""
    return GraphFunction(partial(_joint, model), model)


def _joint(
    model: Program,
    dim: int,
    depth: int,
    num_samples: int,
    z: dict[str, Tensor],
    args: Any,
    kwargs: Any,
) -> tuple[Tensor, Tensor]:
    """Return log p(x | z) and log p(z), both (K, b), at given values of the latent sites."""
    program = poutine.condition(vectorized(model, num_samples, depth), data=z)
    sites = stochastic_sites(poutine.trace(program).get_trace(*args, **kwargs))
    log_px, log_pz = (
        [site for site in sites if (site["name"] in z) == latent] for latent in (False, True)
    )
    keep: set[int | None] = {-1 - depth, dim}
    return log_prob_sum(log_px, keep, scaled=False), log_prob_sum(log_pz, keep, scaled=False)


def _chunks(num_samples: int, num_data: int, chunk_size: int) -> Iterator[tuple[slice, slice]]:
    """Chunks of at most ``chunk_size`` pairs: all samples of a few data, or some samples of one."""
    height = min(num_samples, chunk_size)
    width = max(chunk_size // height, 1)
    for row in range(0, num_data, width):
        for sample in range(0, num_samples, height):
            yield (
                slice(sample, min(sample + height, num_samples)),
                slice(row, min(row + width, num_data)),
            )


def _narrow(site: Any, samples: slice, sample_dim: int, rows: slice, row_dim: int) -> Tensor:
    """The values of a latent site for some samples of some data."""
    value, event_dim = site["value"], site["fn"].event_dim
    value = value.narrow(sample_dim - event_dim, samples.start, samples.stop - samples.start)
    value = value.narrow(row_dim - event_dim, rows.start, rows.stop - rows.start)
    return cast(
        Tensor, value.contiguous()
    )  # a graph is compiled for one layout, whatever block the values are cut from


def count_rows(args: Any, kwargs: Any) -> int:
    """The number of data: the common length of the tensors among the arguments."""
    lengths = {
        len(value)
        for value in (*args, *kwargs.values())
        if isinstance(value, Tensor) and value.ndim
    }
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(
            f"expected tensor arguments with one row per datum, got lengths {sorted(lengths)}"
        )
    return lengths.pop()


def take_rows(args: Any, kwargs: Any, rows: slice) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The same arguments for some of the data only."""

    def take(value: Any) -> Any:
        return value[rows] if isinstance(value, Tensor) and value.ndim else value

    return tuple(map(take, args)), {name: take(value) for name, value in kwargs.items()}
