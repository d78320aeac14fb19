"""The checks of what reports log p(x): weights, log p(x), evaluations, annealing."""

import math
from typing import TYPE_CHECKING, Any

import pyro
import torch
from torch import Tensor

from . import subject
from .build import Pair
from .outcome import ask, demand
from .reference import Statistic, different, exactly
from .spec import Spec

if TYPE_CHECKING:
    from .check import Case

LOOKS = ((300, "pool", 4.5), (3000, "large_pool", 5.0))  # samples, the reference, standard errors


def _weights(pair: Pair, args: Any, kwargs: Any, num: int) -> Tensor:
    return ask(
        lambda: subject.log_weights(pair.model, pair.guide, *args, num_samples=num, **kwargs)
    )


def _per_datum(spec: Spec, name: str) -> None:
    """There is no log p(x) per datum with global latents, nor from a guide without density."""
    demand(spec.latent != "delta", f"{name} gave log p(x) of a Delta guide")
    demand(spec.local, f"{name} gave a number per datum though latents are shared by the data")


def log_weights(case: "Case") -> None:
    """The mean of log w per datum; log p(x) itself from the exact guide."""
    spec, pair = case.spec, case.pair
    for num, pool, errors in LOOKS:
        pyro.set_rng_seed(spec.seed + num)
        value = _weights(pair, pair.args, pair.kwargs, num)
        if spec.dtype != "float64":
            return
        _per_datum(spec, "log_weights")
        demand(
            value.shape == (num, spec.batch),
            f"log weights have shape {tuple(value.shape)} for {num} samples of {spec.batch} data",
        )
        if spec.exact and pair.truth is not None:
            demand(
                torch.allclose(value, pair.truth.expand_as(value), atol=1e-6),
                "log w of the posterior is not log p(x)",
            )
        if spec.latent == "relaxed" or _weights_agree(
            case, value, getattr(case, pool).log_weight, errors
        ):
            return
    different(
        Statistic.of(value), Statistic.of(getattr(case, pool).log_weight), "the mean of log w"
    )


def _weights_agree(case: "Case", ours: Tensor, theirs: Tensor, errors: float) -> bool:
    if Statistic.of(ours).agrees(Statistic.of(theirs), errors):
        return True
    return case.spec.enumerate and Statistic.of((ours - theirs.max(0)[0]).exp()).agrees(
        Statistic.of((theirs - theirs.max(0)[0]).exp()), errors
    )


def log_likelihood(case: "Case") -> None:
    """log p(x), against the truth where it is known."""
    spec, pair = case.spec, case.pair
    pyro.set_rng_seed(spec.seed)
    value = ask(
        lambda: subject.log_likelihood(
            pair.model, pair.guide, *pair.args, num_samples=4000, **pair.kwargs
        )
    )
    _per_datum(spec, "log_likelihood")
    demand(
        value.shape == (spec.batch,),
        f"log_likelihood has shape {tuple(value.shape)} for {spec.batch} data",
    )
    if pair.truth is None:
        return
    weight = (case.large_pool.log_weight - pair.truth).exp()
    if bool(
        (weight.max(0)[0] > 0.05 * weight.sum(0)).any()
    ):  # a few weights decide: the error is not known either
        return
    near = ((value - pair.truth).exp() - 1).abs() <= 6 * Statistic.of(weight).error + 1e-6
    demand(bool(near.all()), f"log p(x) is {value.tolist()}, the truth {pair.truth.tolist()}")


def one_datum(case: "Case") -> None:
    """The weights of one datum alone are those it has in the batch."""
    spec, pair = case.spec, case.pair
    row = spec.seed % spec.batch
    args, kwargs = pair.rows(row, row + 1)
    for num, pool, errors in LOOKS:
        pyro.set_rng_seed(spec.seed + num)
        value = _weights(pair, args, kwargs, num)
        _per_datum(spec, "log_weights")
        demand(
            value.shape == (num, 1),
            f"log weights have shape {tuple(value.shape)} for {num} samples of one datum",
        )
        theirs = getattr(case, pool).log_weight[:, row : row + 1]
        if _weights_agree(case, value, theirs, errors):
            return
    different(Statistic.of(value), Statistic.of(theirs), "the mean of log w")


def evaluation(case: "Case") -> None:
    """One number per datum, near the reference's, whatever the chunk."""
    spec, pair = case.spec, case.pair

    def result(chunk_bytes: int) -> Any:
        pyro.set_rng_seed(spec.seed)
        given = {"num_samples": 64, "kl_draws": 8, "chunk_bytes": chunk_bytes}
        return ask(
            lambda: subject.evaluate(pair.model, pair.guide, *pair.args, **given, **pair.kwargs)
        )

    now = result(1 << 23)
    _per_datum(spec, "evaluate")
    for name in (
        "log_px",
        "elbo",
        "distortion",
        "standard_error",
        "effective_sample_size",
        "pareto_k",
    ):
        shape = tuple(getattr(now, name).shape)
        demand(shape == (spec.batch,), f"evaluate: {name} has shape {shape} for {spec.batch} data")
    units = 0 if spec.discrete else spec.dim * (2 if spec.latent == "two" else 1)
    units += 2 if spec.inner == "latent" else 0
    demand(
        spec.latent in ("relaxed", "mixed") or now.active_units <= units,
        f"evaluate: {now.active_units} active of {units} units",
    )
    if spec.latent == "relaxed":
        return
    log_weight = case.pool.log_weight
    error = log_weight.std(0) / 64**0.5
    near = Statistic(now.elbo, error).agrees(Statistic.of(log_weight), 5.5)
    demand(
        near or spec.enumerate,
        f"evaluate: the ELBO is {now.elbo.tolist()}, the reference {log_weight.mean(0).tolist()}",
    )
    again = result(3)
    for name, value in now.summary().items():
        other = again.summary().get(name, math.nan)
        same = math.isclose(value, other, rel_tol=1e-6, abs_tol=1e-8) or (
            math.isnan(value) and math.isnan(other)
        )
        demand(same, f"evaluate: {name} is {value} in chunks of 2048 and {other} in chunks of 3")


def ais(case: "Case") -> None:
    """One weight per chain and datum; no weight without a density."""
    spec, pair = case.spec, case.pair
    pyro.set_rng_seed(spec.seed)
    number = 1000 if pair.truth is not None else 2
    chains = subject.AIS(num_particles=number, num_steps=4, num_leapfrog=1)
    value = ask(lambda: chains.log_weights(pair.model, pair.guide, *pair.args, **pair.kwargs))
    _per_datum(spec, "AIS")
    demand(
        value.shape == (number, spec.batch),
        f"AIS: log weights have shape {tuple(value.shape)} for {spec.batch} data",
    )
    demand(bool(value.isfinite().all()), "AIS: a weight is not a number")
    if pair.truth is not None:
        mean = Statistic.of((value - pair.truth).exp())
        demand(
            mean.agrees(exactly(torch.ones(spec.batch)), 6.0),
            f"AIS: E[w] / p(x) is {mean.mean.tolist()} +- {mean.error.tolist()}",
        )
