"""Compiled SVI steps against eager ones."""

from dataclasses import replace

import pyro
import torch

from . import subject
from .build import build
from .check import Outcome, check_many
from .faults import likely_fault
from .outcome import Failed, Refused, ask
from .reference import Statistic
from .spec import Spec, draw

STEPS = 200  # at learning rate 0, from which means and standard errors are taken


def check_compiled(seed: int, number: int) -> tuple[list[Outcome], float]:
    """The outcomes of ``number`` programs, compiled."""
    seeds = range(seed, seed + number)
    return check_many(seeds, one=lambda one: [_outcome(replace(draw(one), style="method"))])


def _outcome(spec: Spec) -> Outcome:
    try:
        with pyro.get_param_store().scope():
            eager, compiled = _losses(spec, compile=False), _losses(spec, compile=True)
    except Refused as refused:
        return Outcome(spec, "compiled", "refusal", str(refused))
    except Failed as failed:
        return Outcome(
            spec, "compiled", "failure", str(failed), likely_fault(spec, "compiled", str(failed))
        )
    finally:
        torch.compiler.reset()
    if compiled.agrees(eager, 4.5):
        return Outcome(spec, "compiled", "agreement")
    ours, theirs = (f"{float(s.mean):.4f} +- {float(s.error):.4f}" for s in (compiled, eager))
    detail = f"the loss is {ours} compiled, {theirs} eager"
    return Outcome(spec, "compiled", "failure", detail, likely_fault(spec, "compiled", detail))


def _losses(spec: Spec, compile: bool) -> Statistic:
    """The loss of steps that move nothing."""
    pair = build(spec)
    loss = subject.TraceMeanField_ELBO() if spec.latent == "relaxed" else subject.Trace_ELBO()
    optimiser = torch.optim.Adam(pair.parameters, lr=0.0)
    trainer = ask(
        lambda: subject.SVI(pair.model, pair.guide, optimiser, loss=loss, compile=compile)
    )
    pyro.set_rng_seed(spec.seed)
    return Statistic.of(
        torch.stack([ask(lambda: trainer.step(*pair.args, **pair.kwargs)) for _ in range(STEPS)])
    )
