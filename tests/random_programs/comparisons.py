"""The checks of objectives: each takes a case, and raises ``Refused`` or ``Failed``, or agrees."""

import math
from typing import TYPE_CHECKING, Any

import pyro
import torch
from torch import Tensor

from . import subject
from .build import plain
from .outcome import ask, demand
from .reference import COPIES, Statistic, different, pyro_loss, repeated, with_gradients

if TYPE_CHECKING:
    from .check import Case

LOOKS = (
    (12, 4.5),
    (100, 5.0),
)  # calls and standard errors: only what fails both looks is a failure
K = 3


def _call(case: "Case") -> tuple[Any, Any, int]:
    """The call with copies of the data, which are as many draws, and their number."""
    outside = case.spec.outside or "outside" in (case.spec.model_factor, case.spec.guide_factor)
    copies = 1 if outside else COPIES
    return (*case.pair.copies(copies), copies)


def _ours(
    case: "Case", objective: Any, seed: int, call: tuple[Any, Any]
) -> tuple[Tensor, list[Tensor]]:
    pair = case.pair
    pyro.set_rng_seed(seed)
    loss = ask(lambda: objective.estimate(pair.model, pair.guide, *call[0], **call[1]).loss)
    return with_gradients(loss, pair.parameters)


def _same_gradients(
    case: "Case", objective: Any, at_one_seed: bool = False, analytic: bool = False
) -> None:
    """Loss and gradients against Pyro's: at one seed, or in the mean over seeds."""
    reference, spec = plain(case.spec, strict=False), case.spec
    if at_one_seed:
        own = case.pair.args, case.pair.kwargs
        ours, theirs = (
            _ours(case, objective, spec.seed, own),
            pyro_loss(reference, spec.seed, own, analytic),
        )
        if all(
            torch.allclose(a, b, rtol=1e-7, atol=1e-8)
            for a, b in zip([ours[0], *ours[1]], [theirs[0], *theirs[1]], strict=True)
        ):
            return
    args, kwargs, _ = _call(case)
    if spec.discrete and spec.labels != "given" and not spec.subsample:  # the sum has less noise
        reference = plain(spec, strict=False, enumerate=True, deterministic="")
    for num, errors in LOOKS:
        mean = repeated(lambda seed: _ours(case, objective, seed, (args, kwargs)), spec.seed, num)
        if num not in case.pyro_losses:
            case.pyro_losses[num] = repeated(
                lambda seed: pyro_loss(reference, seed, (args, kwargs)), spec.seed + 10**6, num
            )
        if mean.agrees(case.pyro_losses[num], errors):
            return
    different(mean, case.pyro_losses[num])


def elbo(case: "Case") -> None:
    """Pyro's Trace_ELBO, or TraceEnum_ELBO for a marked guide."""
    _same_gradients(case, subject.Trace_ELBO(), at_one_seed=True)


def elbo_particles(case: "Case") -> None:
    """The same expectation with K = 3."""
    _same_gradients(case, subject.Trace_ELBO(num_particles=K))


def mean_field(case: "Case") -> None:
    """The same expectation, and gradient, with the KL in closed form."""
    _analytic(case, subject.TraceMeanField_ELBO())


def free_bits(case: "Case") -> None:
    """A floor of zero is the ELBO."""
    _analytic(case, subject.FreeBits(floor=0.0))


def _analytic(case: "Case", objective: Any) -> None:
    """Pyro's TraceMeanField_ELBO at one seed, or its Trace_ELBO in the mean."""
    spec = case.spec
    exact = not (spec.discrete or spec.reverse or spec.latent == "auxiliary")
    _same_gradients(case, objective, at_one_seed=exact, analytic=True)


def score_function(case: "Case") -> None:
    """An unbiased gradient of the ELBO; a factor in the guide is part of the ELBO alone."""
    objective = subject.ScoreFunction_ELBO(K)
    _bound(case, objective, samples=1) if case.spec.guide_factor else _same_gradients(
        case, objective
    )


def iwae(case: "Case") -> None:
    """The bound of K weights per datum."""
    _bound(case, subject.IWAE(K))


def renyi(case: "Case") -> None:
    """Renyi's bound of K weights per datum."""
    _bound(case, subject.Renyi(K, alpha=0.5), alpha=0.5)


def dreg(case: "Case") -> None:
    """IWAE's value by another gradient."""
    _bound(case, subject.DReG(K))


def stl(case: "Case") -> None:
    """The ELBO, by another gradient of the same mean."""
    objective = subject.STL(K)
    _bound(case, objective, samples=1) if case.spec.guide_factor else _same_gradients(
        case, objective
    )


def _bound(case: "Case", objective: Any, alpha: float = 0.0, samples: int = K) -> None:
    """A bound made of one weight per datum; scales that differ have no place in it."""
    spec = case.spec
    args, kwargs, copies = _call(case)
    scale = 0.4 if spec.scale == "all" else 1.0
    for (num, errors), pool in zip(LOOKS, ("pool", "large_pool"), strict=True):
        losses = [
            _ours(case, objective, spec.seed + i, (args, kwargs))[0] / copies for i in range(num)
        ]
        demand(
            spec.scale in ("", "all"),
            "scales that differ between sites were taken into a bound of weights",
        )
        ours = Statistic.of(-torch.stack(losses).reshape(num, 1) / scale)
        kinds = [
            (joint, factors)
            for joint in {not spec.local}
            for factors in {False, bool(spec.guide_factor)}
        ]
        bounds = [
            getattr(case, pool).bound(samples, alpha, factors=factors, joint=joint)
            for joint, factors in kinds
        ]
        if any(ours.agrees(bound, errors) for bound in bounds):
            return
    different(ours, Statistic(bounds[0].mean.reshape(1), bounds[0].error.reshape(1)), "the bound")


def svi(case: "Case") -> None:
    """A step with learning rate zero: a finite loss, nothing moved, nothing left behind."""
    pair, before = case.pair, [p.detach().clone() for p in case.pair.parameters]
    pyro.set_rng_seed(case.spec.seed)
    loss = subject.TraceMeanField_ELBO() if case.spec.latent == "relaxed" else subject.Trace_ELBO()
    trainer = subject.SVI(
        pair.model, pair.guide, torch.optim.SGD(pair.parameters, lr=0.0), loss=loss
    )
    value = ask(lambda: trainer.step(*pair.args, **pair.kwargs))
    demand(math.isfinite(float(value)), f"the loss is {float(value)}")
    demand(
        all(torch.equal(a, b) for a, b in zip(before, pair.parameters, strict=True)),
        "a parameter moved",
    )
    demand(not list(pyro.get_param_store().keys()), "Pyro's store is not empty")
