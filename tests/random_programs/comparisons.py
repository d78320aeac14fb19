"""The checks themselves: each takes a case, and raises ``Refused`` or ``Failed``, or agrees."""

import math
from typing import TYPE_CHECKING, Any

import pyro
import torch
from torch import Tensor

from . import subject
from .build import plain
from .outcome import Failed, ask, demand
from .reference import COPIES, Statistic, exactly, pyro_loss, repeated, with_gradients
from .spec import Spec

if TYPE_CHECKING:
    from .check import Case

LOOKS = ((16, 4.5), (160, 5.0))  # calls and standard errors: only what fails both looks is a failure
K = 3


def _call(case: "Case") -> tuple[Any, Any, int]:
    """The call with copies of the data, which are as many draws, and their number."""
    outside = case.spec.outside or "outside" in (case.spec.model_factor, case.spec.guide_factor)
    copies = 1 if outside else COPIES
    return (*case.pair.copies(copies), copies)


def _ours(case: "Case", objective: Any, seed: int, call: tuple[Any, Any]) -> tuple[Tensor, list[Tensor]]:
    pair = case.pair
    pyro.set_rng_seed(seed)
    loss = ask(lambda: objective(pair.model, pair.guide, *call[0], **call[1]).loss)
    return with_gradients(loss, pair.parameters)


def _same_gradients(case: "Case", objective: Any, exact: bool = False) -> None:
    """Loss and gradients against Pyro's, at one seed if that is exact already, otherwise in the mean over seeds."""
    reference = plain(case.spec, strict=False)
    if exact:
        own = case.pair.args, case.pair.kwargs
        ours, theirs = _ours(case, objective, case.spec.seed, own), pyro_loss(reference, case.spec.seed, own)
        if all(torch.allclose(a, b, rtol=1e-7, atol=1e-8) for a, b in zip([ours[0], *ours[1]], [theirs[0], *theirs[1]], strict=True)):
            return
    args, kwargs, _ = _call(case)
    for num, errors in LOOKS:
        ours = repeated(lambda seed: _ours(case, objective, seed, (args, kwargs)), case.spec.seed, num)
        theirs = repeated(lambda seed: pyro_loss(reference, seed + 10**6, (args, kwargs)), case.spec.seed, num)
        if ours.agrees(theirs, errors):
            return
    _different(ours, theirs)


def _different(ours: Statistic, theirs: Statistic, what: str = "") -> None:
    gap = (ours.mean - theirs.mean).abs() / ((ours.error.square() + theirs.error.square()).sqrt() + 1e-6)
    worst = int(gap.argmax())
    what = what or ("the loss" if worst == 0 else "a gradient")
    a, b = (f"{float(s.mean.flatten()[worst]):.4f} +- {float(s.error.flatten()[worst]):.4f}" for s in (ours, theirs))
    raise Failed(f"{what} is {a}, the reference {b}")


def elbo(case: "Case") -> None:
    """Pyro's Trace_ELBO, or TraceEnum_ELBO for a marked guide."""
    _same_gradients(case, subject.Trace_ELBO(), exact=True)


def elbo_particles(case: "Case") -> None:
    """The same expectation with K = 3."""
    _same_gradients(case, subject.Trace_ELBO(num_particles=K, max_plate_nesting=case.spec.nesting))


def mean_field(case: "Case") -> None:
    """The same expectation, and gradient, with the KL in closed form."""
    _analytic(case, subject.TraceMeanField_ELBO())


def free_bits(case: "Case") -> None:
    """A floor of zero is the ELBO."""
    _analytic(case, subject.FreeBits(floor=0.0))


def _analytic(case: "Case", objective: Any) -> None:
    """The ELBO; or where the scale is the model's alone, Pyro's TraceMeanField_ELBO, which takes the guide's for the KL."""
    if case.spec.scale == "model" and not case.spec.discrete and case.spec.latent != "auxiliary":
        own = case.pair.args, case.pair.kwargs
        ours = _ours(case, objective, case.spec.seed, own)[0]
        if torch.allclose(ours, pyro_loss(plain(case.spec, strict=False), case.spec.seed, own, analytic=True)[0]):
            return
    _same_gradients(case, objective)


def score_function(case: "Case") -> None:
    """An unbiased gradient of the ELBO; a factor in the guide is part of the ELBO alone."""
    objective = subject.ScoreFunction_ELBO(K, max_plate_nesting=case.spec.nesting)
    _bound(case, objective, samples=1) if case.spec.guide_factor else _same_gradients(case, objective)


def iwae(case: "Case") -> None:
    """The bound of K weights per datum."""
    _bound(case, subject.IWAE(K, max_plate_nesting=case.spec.nesting))


def renyi(case: "Case") -> None:
    """Renyi's bound of K weights per datum."""
    _bound(case, subject.Renyi(K, max_plate_nesting=case.spec.nesting, alpha=0.5), alpha=0.5)


def dreg(case: "Case") -> None:
    """IWAE's value by another gradient."""
    _bound(case, subject.DReG(K, max_plate_nesting=case.spec.nesting))


def stl(case: "Case") -> None:
    """The ELBO, by another gradient of the same mean."""
    objective = subject.STL(K, max_plate_nesting=case.spec.nesting)
    _bound(case, objective, samples=1) if case.spec.guide_factor else _same_gradients(case, objective)


def _bound(case: "Case", objective: Any, alpha: float = 0.0, samples: int = K) -> None:
    """A bound made of one weight per datum; scales that differ have no place in it."""
    spec = case.spec
    args, kwargs, copies = _call(case)
    scale = 0.4 if spec.scale == "all" else 1.0
    for (num, errors), pool in zip(LOOKS, ("pool", "large_pool"), strict=True):
        losses = [_ours(case, objective, spec.seed + i, (args, kwargs))[0] / copies for i in range(num)]
        demand(spec.scale in ("", "all"), "scales that differ between sites were taken into a bound of weights")
        ours = Statistic.of(-torch.stack(losses).reshape(num, 1) / scale)
        kinds = [(joint, factors) for joint in {not spec.local} for factors in {False, bool(spec.guide_factor)}]
        bounds = [getattr(case, pool).bound(samples, alpha, factors=factors, joint=joint) for joint, factors in kinds]
        if any(ours.agrees(bound, errors) for bound in bounds):
            return
    _different(ours, Statistic(bounds[0].mean.reshape(1), bounds[0].error.reshape(1)), "the bound")


def svi(case: "Case") -> None:
    """A step with learning rate zero: a finite loss, nothing moved, nothing left behind."""
    pair, before = case.pair, [p.detach().clone() for p in case.pair.parameters]
    pyro.set_rng_seed(case.spec.seed)
    loss = subject.TraceMeanField_ELBO() if case.spec.latent == "relaxed" else subject.Trace_ELBO()
    trainer = subject.SVI(pair.model, pair.guide, torch.optim.SGD(pair.parameters, lr=0.0), loss=loss)
    value = ask(lambda: trainer.step(*pair.args, **pair.kwargs))
    demand(math.isfinite(float(value)), f"the loss is {float(value)}")
    demand(all(torch.equal(a, b) for a, b in zip(before, pair.parameters, strict=True)), "a parameter moved")
    demand(not list(pyro.get_param_store().keys()), "Pyro's store is not empty")


def _per_datum(spec: Spec, name: str) -> None:
    """log p(x) per datum does not exist with global latents, nor with a guide that has no density."""
    demand(spec.latent != "delta", f"{name} gave log p(x) of a Delta guide")
    demand(spec.local, f"{name} gave a number per datum though latents are shared by the data")


def log_weights(case: "Case") -> None:
    """The mean of log w per datum (or of w, where a site is summed out), and log p(x) itself from the exact guide."""
    spec, pair = case.spec, case.pair
    for num, pool, errors in ((300, "pool", 4.5), (3000, "large_pool", 5.0)):
        pyro.set_rng_seed(spec.seed + num)
        value = ask(lambda: subject.log_weights(pair.model, pair.guide, *pair.args, num_samples=num, **pair.kwargs))  # noqa: B023
        if spec.dtype != "float64":
            return
        _per_datum(spec, "log_weights")
        demand(value.shape == (num, spec.batch), f"log weights have shape {tuple(value.shape)} for {num} samples of {spec.batch} data")
        if spec.exact and pair.truth is not None:
            demand(torch.allclose(value, pair.truth.expand_as(value), atol=1e-6), "log w of the posterior is not log p(x)")
        if spec.latent == "relaxed" or _weights_agree(case, value, getattr(case, pool).log_weight, errors):
            return
    _different(Statistic.of(value), Statistic.of(getattr(case, pool).log_weight), "the mean of log w")


def _weights_agree(case: "Case", ours: Tensor, theirs: Tensor, errors: float) -> bool:
    if Statistic.of(ours).agrees(Statistic.of(theirs), errors):
        return True
    return case.spec.enumerate and Statistic.of((ours - theirs.max(0)[0]).exp()).agrees(Statistic.of((theirs - theirs.max(0)[0]).exp()), errors)


def log_likelihood(case: "Case") -> None:
    """log p(x), against the truth where it is known."""
    spec, pair = case.spec, case.pair
    pyro.set_rng_seed(spec.seed)
    value = ask(lambda: subject.log_likelihood(pair.model, pair.guide, *pair.args, num_samples=4000, **pair.kwargs))
    _per_datum(spec, "log_likelihood")
    demand(value.shape == (spec.batch,), f"log_likelihood has shape {tuple(value.shape)} for {spec.batch} data")
    if pair.truth is None:
        return
    relative = (case.large_pool.log_weight - pair.truth).exp()
    error = Statistic.of(relative).error + 1e-6
    near = ((value - pair.truth).exp() - 1).abs() <= 6 * error + 0.05
    demand(bool(near.all()), f"log p(x) is {value.tolist()}, the truth {pair.truth.tolist()}")


def one_datum(case: "Case") -> None:
    """The weights of one datum alone are those it has in the batch."""
    spec, pair = case.spec, case.pair
    row = spec.seed % spec.batch
    args, kwargs = pair.rows(row, row + 1)
    for num, pool, errors in ((300, "pool", 4.5), (3000, "large_pool", 5.0)):
        pyro.set_rng_seed(spec.seed + num)
        value = ask(lambda: subject.log_weights(pair.model, pair.guide, *args, num_samples=num, **kwargs))  # noqa: B023
        _per_datum(spec, "log_weights")
        demand(value.shape == (num, 1), f"log weights have shape {tuple(value.shape)} for {num} samples of one datum")
        theirs = getattr(case, pool).log_weight[:, row : row + 1]
        if _weights_agree(case, value, theirs, errors):
            return
    _different(Statistic.of(value), Statistic.of(theirs), "the mean of log w")


def evaluation(case: "Case") -> None:
    """One number per datum, near the reference's, whatever the chunk."""
    spec, pair = case.spec, case.pair

    def result(chunk_size: int) -> Any:
        pyro.set_rng_seed(spec.seed)
        given = {"num_samples": 256, "kl_draws": 16, "chunk_size": chunk_size}
        return ask(lambda: subject.evaluate(pair.model, pair.guide, *pair.args, **given, **pair.kwargs))

    now = result(2048)
    _per_datum(spec, "evaluate")
    for name in ("log_px", "elbo", "distortion", "standard_error", "effective_sample_size", "pareto_k"):
        shape = tuple(getattr(now, name).shape)
        demand(shape == (spec.batch,), f"evaluate: {name} has shape {shape} for {spec.batch} data")
    units = 0 if spec.discrete else spec.dim * (2 if spec.latent == "two" else 1) + (2 if spec.inner == "latent" else 0)
    demand(spec.latent in ("relaxed", "mixed") or now.active_units <= units, f"evaluate: {now.active_units} active of {units} units")
    if spec.latent == "relaxed":
        return
    log_weight = case.pool.log_weight
    error = log_weight.std(0) / 256**0.5
    near = Statistic(now.elbo, error).agrees(Statistic.of(log_weight), 5.5)
    demand(near or spec.enumerate, f"evaluate: the ELBO is {now.elbo.tolist()}, the reference {log_weight.mean(0).tolist()}")
    again = result(3)
    for name, value in now.summary().items():
        other = again.summary().get(name, math.nan)
        same = math.isclose(value, other, rel_tol=1e-6, abs_tol=1e-8) or (math.isnan(value) and math.isnan(other))
        demand(same, f"evaluate: {name} is {value} in chunks of 2048 and {other} in chunks of 3")


def ais(case: "Case") -> None:
    """One weight per chain and datum; no weight without a density."""
    spec, pair = case.spec, case.pair
    pyro.set_rng_seed(spec.seed)
    chains = subject.AIS(num_particles=2, num_steps=4, num_leapfrog=1)
    value = ask(lambda: chains.log_weights(pair.model, pair.guide, *pair.args, **pair.kwargs))
    _per_datum(spec, "AIS")
    demand(value.shape == (2, spec.batch), f"AIS: log weights have shape {tuple(value.shape)} for 2 chains of {spec.batch} data")
    demand(Statistic.of(value).agrees(exactly(value.mean(0))), "AIS: a weight is not a number")


def call_of(check: str, spec: Spec) -> str:
    """The call that a check makes, as a line of a program."""
    names = {"ELBO, K = 3": "Trace_ELBO", "analytic ELBO": "TraceMeanField_ELBO", "free bits": "FreeBits", "score function": "ScoreFunction_ELBO"}
    names |= {"ELBO": "Trace_ELBO", "log weights": "log_weights", "one datum": "log_weights", "log likelihood": "log_likelihood"}
    name = names.get(check, check)
    start = f"from tests.random_programs.subject import {name}\n\npyro.set_rng_seed({spec.seed})\n"
    if name in ("log_weights", "log_likelihood", "evaluate"):
        return f"{start}print({name}(model, guide, *args, num_samples=300, **kwargs))"
    if name == "AIS":
        return f"{start}print(AIS(2, 4, 1).log_weights(model, guide, *args, **kwargs))"
    if name == "SVI":
        optimiser = "torch.optim.SGD(nets.parameters(), lr=0.0)"
        step = f"SVI(model, guide, {optimiser}, loss=Trace_ELBO()).step(*args, **kwargs)"
        return f"{start.replace('import SVI', 'import SVI, Trace_ELBO')}print({step})"
    some = "" if name in ("TraceMeanField_ELBO", "FreeBits") or check == "ELBO" else f"{K}, max_plate_nesting={spec.nesting}"
    some = some.replace(f"{K}", f"num_particles={K}") if name == "Trace_ELBO" else some
    lines = f"print({name}({some})(model, guide, *args, **kwargs).loss)"
    theirs = "TraceEnum_ELBO" if spec.enumerate else "Trace_ELBO"
    return f"{start}{lines}\nprint(pyro.infer.{theirs}().differentiable_loss(model, guide, *args, **kwargs))"
