"""Importance weighting: an estimate of log p(x) for each datum that is a valid lower bound.

w_k = p(x, z_k) / q(z_k | x),  z_k ~ q(z | x),     log p(x) = log E[w] >= E[log 1/K sum_k w_k].
"""

import math
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any, NamedTuple

import pyro
import torch
from torch import Tensor

from ..programs.checks import at_least
from ..programs.draw import Sample
from ..programs.graphs import GraphFunction
from ..programs.heap import keep_heap
from ..programs.pair import Pair
from ..programs.rows import Call, chunks
from ..programs.scoring import log_weight
from ..programs.sites import Program
from ..programs.structure import Values
from .estimators import numbers

GUIDE_DRAWS = 1 << 16
"""The most draws (samples x data) in one pass of a guide whose one distribution makes them all.

This and the next two are fixed: a seed gives the same result for any ``chunk_bytes``."""

GUIDE_ROWS = 1 << 14
"""The most rows, data or copies of them, in one pass of a guide."""

GUIDE_BYTES = 1 << 28
"""The maximal size in bytes of a network's largest output in one pass of a guide."""

CHUNK_BYTES = 12 << 20
"""The same in one pass of a model: it fits the caches, where what follows the network finds it."""


class Block(NamedTuple):
    """The weights of some data and some samples.

    ``log_weight[k, b]`` belongs to sample ``samples[k]`` of datum ``rows[b]``.
    """

    rows: slice
    samples: slice
    log_weight: Tensor
    log_likelihood: Tensor
    """The part log p(x | z) of the log weight."""
    elbo: Tensor
    """The log weight, with the expectation over the guide's summed sites outside the logarithm."""


class Scorer:
    """A pair whose model computes the densities of draws.

    With ``compile`` it uses a compiled graph, which is shared by all calls with this scorer.
    ``rows`` names the arguments with one row per datum, where this is not clear.
    """

    def __init__(
        self,
        model: Program,
        guide: Program,
        *,
        compile: bool = False,
        rows: Sequence[int | str] | None = None,
    ) -> None:
        self.pair = Pair(model, guide, rows=rows)
        self._graph: GraphFunction | None = None
        self.compiled = compile

    def __call__(
        self, call: Call, values: Values, number: int, validate: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Return log p(x | z) and log p(z), (N, B) each, at values (N, B, ...), N = ``number``.

        With ``validate`` it runs eagerly and checks data and parameters.
        """
        if validate or not self.compiled:
            with pyro.validation_enabled(validate):
                return self.pair.score_model(call, values, number)
        self.pair.structure(call)  # found eagerly: a graph cannot read values
        if self._graph is None:
            self._graph = GraphFunction(self.pair.score_model, self.pair.modules)
        log_likelihood, log_prior = self._graph(call, values, number)
        return log_likelihood, log_prior


def log_weights(
    model: Program,
    guide: Program,
    *args: Any,
    num_samples: int,
    chunk_bytes: int = CHUNK_BYTES,
    compile: bool | Scorer = False,
    rows: Sequence[int | str] | None = None,
    **kwargs: Any,
) -> Tensor:
    """Return the log importance weights, in nats.

    log w_kb = log p(x_b, z_kb) - log q(z_kb | x_b),  z_kb ~ q(z | x_b)

    ``model`` and ``guide`` are any two programs, called with ``args`` and ``kwargs``. All their
    sites are in one plate over the data. Tensors among the arguments have one row per datum. Where
    their lengths differ, only the tensors whose length is the size of the plate have rows; ``rows``
    names them explicitly. The result has shape (K, B), where K is ``num_samples``.

    The model computes the densities of several draws at once: as many as keep a network's largest
    output within ``chunk_bytes``. The result does not depend on this number, except for rounding.
    Modules are used in ``eval`` mode. The first draw of each datum validates data and parameters.
    Discrete sites marked ``infer={"enumerate": "parallel"}`` are summed out. With ``compile`` the
    model runs as one compiled graph. This is faster from about a million draws; a :class:`Scorer`
    in place of True shares the graph between calls.

    Raises ``ValueError`` for K < 1, sites that do not match, programs without a weight for each
    datum (global sites, a plate that subsamples, a guide without a density), or a weight of NaN.

    >>> log_weights(vae.model, vae.guide, torch.ones(3, 64), num_samples=10).shape
    torch.Size([10, 3])
    """
    scorer = scorer_of(model, guide, compile, rows)
    blocks = list(stream(scorer, (args, kwargs), num_samples, chunk_bytes))
    out = blocks[0].log_weight.new_empty(num_samples, blocks[-1].rows.stop)
    for block in blocks:
        out[block.samples, block.rows] = block.log_weight
    return out


def log_likelihood(
    model: Program,
    guide: Program,
    *args: Any,
    num_samples: int,
    chunk_bytes: int = CHUNK_BYTES,
    compile: bool | Scorer = False,
    rows: Sequence[int | str] | None = None,
    **kwargs: Any,
) -> Tensor:
    """Return the importance-weighted estimate of log p(x_b), in nats, of shape (B,).

    log p(x) ~ log 1/K sum_k w_k is a lower bound of log p(x) in expectation. It becomes tighter as
    K = ``num_samples`` grows. Memory does not grow with K. Arguments and errors are those of
    :func:`log_weights`.

    Source: Rezende, Mohamed & Wierstra, *Stochastic Backpropagation*, 2014, appendix E; Burda,
    Grosse & Salakhutdinov, *Importance Weighted Autoencoders*, 2015.

    >>> log_likelihood(vae.model, vae.guide, torch.ones(3, 64), num_samples=10).shape
    torch.Size([3])
    """
    scorer = scorer_of(model, guide, compile, rows)
    totals: dict[int, Tensor] = {}
    for block in stream(scorer, (args, kwargs), num_samples, chunk_bytes):
        total = block.log_weight.logsumexp(0)
        first = block.rows.start
        totals[first] = torch.logaddexp(totals[first], total) if first in totals else total
    return torch.cat(list(totals.values())) - math.log(num_samples)


def scorer_of(
    model: Program,
    guide: Program,
    compile: bool | Scorer = False,
    rows: Sequence[int | str] | None = None,
) -> Scorer:
    """Return the scorer that was given as ``compile``, or a new one.

    Raises ``ValueError`` where the given scorer belongs to another pair.
    """
    if not isinstance(compile, Scorer):
        return Scorer(model, guide, compile=compile, rows=rows)
    if compile.pair.model != model or compile.pair.guide != guide:
        raise ValueError("expected a Scorer of the same model and guide, got one of others")
    return compile


def stream(
    scorer: Scorer, call: Call, num_samples: int, chunk_bytes: int = CHUNK_BYTES
) -> Iterator[Block]:
    """Yield all the weights in blocks, ordered by data and then by samples."""
    at_least(1, num_samples=num_samples, chunk_bytes=chunk_bytes)
    keep_heap()
    pair = scorer.pair
    with pair.looking():
        found = pair.sliced(call)
    if found.refusal is not None:
        raise ValueError(found.refusal)
    width = max(chunk_bytes // found.row_bytes, 1)
    most = max(min(GUIDE_ROWS, GUIDE_BYTES // found.row_bytes) // found.guide_copies, 1)
    draws = GUIDE_DRAWS if found.single else most
    height = min(num_samples, draws)
    data = chunks(found.rows.size, min(draws // height, most))
    for rows, samples in product(data, chunks(num_samples, height)):
        with pair.looking():
            part = found.rows.take(call, rows)
            sample = pair.sample(part, samples.stop - samples.start)
            scores = _scores(scorer, part, sample, width)
        yield Block(rows, samples, *scores)


def _scores(
    scorer: Scorer, call: Call, sample: Sample, width: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return log w, log p(x | z) and the ELBO, (K, b) each, of draws from the guide."""
    log_guide = sample.log_guide
    rows = scorer.pair.structure(call).rows
    number = log_guide[..., 0].numel()
    log_likelihood, log_prior = (log_guide.new_empty(number, rows.size) for _ in range(2))
    for data, copies in _passes(rows.size, number, width):
        values = {name: v[copies, data].contiguous() for name, v in sample.values.items()}
        runs = copies.stop - copies.start
        scores = scorer(rows.take(call, data), values, runs, validate=copies.start == 0)
        log_likelihood[copies, data], log_prior[copies, data] = scores
    log_likelihood = log_likelihood.view_as(log_guide)
    log_joint = log_likelihood + log_prior.view_as(log_guide)
    weight = numbers(log_weight(log_joint, log_guide, sample.log_summed))
    if sample.log_summed is None:
        return weight, log_likelihood, weight
    elbo = sample.expectation(log_joint - log_guide)
    return weight, sample.expectation(log_likelihood), elbo


def _passes(size: int, number: int, width: int) -> Iterator[tuple[slice, slice]]:
    """Divide the draws into passes of the model, of at most ``width`` rows each.

    The first pass has one draw of each datum and is validated. Validation of all draws would cost a
    fifth of the time.
    """
    yield from product(chunks(size, width), (slice(0, 1),))
    if number > 1:
        height = -(-(number - 1) // -(-(number - 1) // width))  # passes of nearly equal size
        rest = [slice(c.start + 1, c.stop + 1) for c in chunks(number - 1, height)]
        yield from product(chunks(size, width // height), rest)


def columns(
    scorer: Scorer, call: Call, num_samples: int, chunk_bytes: int = CHUNK_BYTES
) -> Iterator[Block]:
    """Yield the weights of a few data at a time, with all their samples: see :func:`stream`."""
    waiting: list[Block] = []
    for block in stream(scorer, call, num_samples, chunk_bytes):
        waiting.append(block)
        if block.samples.stop == num_samples:
            parts = zip(*(b[2:] for b in waiting), strict=True)
            yield Block(block.rows, slice(0, num_samples), *map(torch.cat, parts))
            waiting = []
