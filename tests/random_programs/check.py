"""Checks of a pair: each ends in agreement, in a refusal with a true sentence, or in a failure."""

import random
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import pyro
import torch

from . import comparisons, densities
from .build import Pair, build
from .faults import likely_fault, untrue
from .outcome import Failed, Refused
from .reference import Pool, Statistic, pool, pyro_loss
from .reproduce import call_of
from .spec import Spec, draw

Check = Callable[["Case"], None]

EVERY = 500
"""Programs between two lines that tell how the checks went so far."""


@dataclass(frozen=True)
class Case:
    """A pair under test and its references, each computed at most once."""

    spec: Spec
    pair: Pair

    @cached_property
    def pool(self) -> Pool:
        """Draws of plain Pyro."""
        return pool(self.spec, seed=self.spec.seed + 1)

    @cached_property
    def large_pool(self) -> Pool:
        """Ten times as many, for a second look."""
        return pool(self.spec, seed=self.spec.seed + 2, num=4000)

    @cached_property
    def pyro_losses(self) -> dict[int, Statistic]:
        """Pyro's mean losses and gradients, by the number of calls."""
        return {}


@dataclass(frozen=True)
class Outcome:
    """How one check of one program ended."""

    spec: Spec
    check: str
    status: str
    """"agreement", "refusal", "failure" or "invalid"."""
    detail: str = ""
    fault: str = ""


CHECKS: dict[str, Check] = {
    "ELBO": comparisons.elbo,
    "SVI": comparisons.svi,
    "ELBO, K = 3": comparisons.elbo_particles,
    "analytic ELBO": comparisons.mean_field,
    "IWAE": comparisons.iwae,
    "Renyi": comparisons.renyi,
    "DReG": comparisons.dreg,
    "STL": comparisons.stl,
    "score function": comparisons.score_function,
    "free bits": comparisons.free_bits,
    "log weights": densities.log_weights,
    "log likelihood": densities.log_likelihood,
    "one datum": densities.one_datum,
    "evaluate": densities.evaluation,
    "AIS": densities.ais,
}


def chosen(spec: Spec, share: float = 0.5) -> list[str]:
    """The first two checks, and of the others that apply each with a probability."""
    r = random.Random(-spec.seed - 1)
    kept = {name for name in CHECKS if r.random() < share}
    if spec.dtype != "float64":
        return ["SVI", "log weights"]
    if spec.noise:
        return ["ELBO", "SVI", "DReG", "STL", "AIS"]
    if spec.latent == "relaxed":
        return ["SVI", "log weights", "evaluate"]
    apart = {"IWAE", "Renyi", "DReG", "STL"} if spec.enumerate else set()
    apart |= set() if spec.discrete else {"score function"}
    apart |= set() if spec.latent == "delta" or r.random() < 0.05 else {"AIS"}
    return [name for i, name in enumerate(CHECKS) if i < 2 or (name in kept and name not in apart)]


def check(spec: Spec, share: float = 0.5) -> Iterator[Outcome]:
    """The outcomes of all checks of a specification."""
    case = Case(spec, build(spec))
    if spec.dtype == "float64" and spec.latent != "relaxed":
        try:
            pyro_loss(build(replace(spec, style="closure")), seed=0)
        except Exception as error:  # Pyro itself cannot run it
            yield Outcome(spec, "Pyro", "invalid", repr(error)[:300])
            return
    for name in chosen(spec, share):
        yield run(case, name)


def run(case: Case, name: str) -> Outcome:
    """The outcome of one check."""
    spec = case.spec
    state = torch.random.get_rng_state()
    try:
        with pyro.get_param_store().scope(), pyro.validation_enabled(True):
            CHECKS[name](case)
        return Outcome(spec, name, "agreement")
    except Refused as refused:
        sentence = str(refused)
        if not untrue(spec, sentence):
            return Outcome(spec, name, "refusal", sentence)
        detail = f"refused with a sentence that is not true of the program: {sentence}"
    except Failed as failed:
        detail = str(failed)
    except Exception as error:  # the reference's, since every call under test is asked
        return Outcome(spec, name, "invalid", repr(error)[:300])
    finally:
        torch.random.set_rng_state(state)
    return Outcome(spec, name, "failure", detail, likely_fault(spec, name, detail))


def report(outcome: Outcome) -> str:
    """A failure with the program that reproduces it."""
    spec = outcome.spec
    start = f"# {outcome.check}: {outcome.detail}\n# likely fault: {outcome.fault}\n"
    again = f"# again: python -m tests.random_programs --only {spec.seed}\n"
    return f"{start}{again}{build(spec).source}\n{call_of(outcome.check, spec)}\n"


def check_many(
    seeds: range, share: float = 0.5, one: Callable[[int], Iterable[Outcome]] | None = None
) -> tuple[list[Outcome], float]:
    """The outcomes of many programs, and the seconds they took; those so far if interrupted.

    ``one`` gives the outcomes of one seed: by default, those of its eager checks.
    """
    start = time.perf_counter()
    outcomes: list[Outcome] = []
    try:
        for number, seed in enumerate(seeds, start=1):
            outcomes += check(draw(seed), share) if one is None else one(seed)
            if number % EVERY == 0:
                counts = ", ".join(f"{status} {n}" for status, n in worst(outcomes).items())
                seconds = time.perf_counter() - start
                print(f"{number} of {len(seeds)} programs: {counts}; {seconds:.0f} s", flush=True)
    except KeyboardInterrupt:
        print(f"interrupted at seed {seed}", flush=True)
    return outcomes, time.perf_counter() - start


def worst(outcomes: list[Outcome]) -> dict[str, Any]:
    """One status per program: its worst."""
    order = ("failure", "invalid", "refusal", "agreement")
    found: dict[int, str] = {}
    for outcome in outcomes:
        now = found.get(outcome.spec.seed, "agreement")
        found[outcome.spec.seed] = min(now, outcome.status, key=order.index)
    return {status: sum(value == status for value in found.values()) for status in order}
