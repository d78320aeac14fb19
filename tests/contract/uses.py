"""The uses: each compares a number of the library with a trusted one, or lets a refusal pass."""

from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any

import pyro
import torch
from torch import Tensor

from pyro_vae import evaluate, log_likelihood, objectives
from pyro_vae.evaluation import AIS
from pyro_vae.inference import SVI

from . import keep, truth
from .pairs import PAIRS
from .subject import Subject
from .truth import Mean, Pool, pool

Use = Callable[[str], None]
COPIES, STEPS, K, RATE = 128, 8, 5, 1e-3


class Wrong(AssertionError):
    """A number differs from the trusted one."""


def make(name: str, training: bool = True) -> Subject:
    """A new pair, its modules in one mode."""
    return PAIRS[name]().mode(training)


@cache
def pool_of(name: str, training: bool) -> Pool:
    """The trusted draws of a pair."""
    return pool(make(name, training))


def demand(agree: bool, what: str, ours: Any, theirs: Any) -> None:
    """Raise ``Wrong`` unless two values agree."""
    if not agree:
        raise Wrong(f"{what}: got {ours}, trusted {theirs}")


def same_mean(ours: Mean, theirs: Mean, what: str) -> None:
    """Raise ``Wrong`` unless two means agree."""
    demand(ours.agrees(theirs), what, ours, theirs)


def same(ours: Tensor, theirs: Tensor, what: str) -> None:
    """Raise ``Wrong`` unless two tensors agree to rounding."""
    demand(torch.allclose(ours, theirs, rtol=1e-7, atol=1e-8), what, ours, theirs)


def svi_of(
    subject: Subject, loss: Any, rate: float = RATE, kind: type = torch.optim.SGD, **options: Any
) -> SVI:
    """The library's SVI of a pair."""
    optim = kind(subject.used(), lr=rate)
    return SVI(subject.model, subject.guide, optim, loss=loss, **options)


def mean_step(
    name: str,
    loss: Any,
    expected: Callable[[Pool], Mean],
    *,
    copies: int = COPIES,
    steps: int = STEPS,
    **options: Any,
) -> None:
    """Steps that move nothing: their mean loss; then one that moves every weight a little."""
    subject = make(name)
    copies = copies if subject.copyable else 1
    pyro.set_rng_seed(2)
    svi = svi_of(subject, loss, 0.0, **options)
    args = subject.copies(copies)
    number = steps if subject.copyable else 4 * STEPS
    losses = torch.stack([svi.step(*args) for _ in range(number)]) / copies
    same_mean(Mean.of(-losses), expected(pool_of(name, True)), "the mean of the loss")
    before = [p.detach().clone() for p in subject.used()]
    svi.optim.param_groups[0]["lr"] = RATE
    svi.step(*args)
    moved = [not torch.equal(a, b) for a, b in zip(before, subject.used(), strict=True)]
    demand(any(moved), "weights that moved", moved, "some")


def exact_step(name: str, loss: Any, elbo: type = pyro.infer.Trace_ELBO) -> None:
    """One step of plain gradient descent: the loss, and every weight after it."""
    expected = truth.value(make(name), 3, elbo)
    subject = make(name)
    before = [p.detach().clone() for p in subject.used()]
    svi = svi_of(subject, loss)
    pyro.set_rng_seed(3)
    same(svi.step(*subject.args), expected[0], "the loss")
    descended(subject, before, expected[1])


def descended(subject: Subject, before: list[Tensor], grads: list[Tensor]) -> None:
    """Whether weights are where the trusted gradient leads."""
    for old, grad, now in zip(before, grads, subject.used(), strict=True):
        same(now.detach(), old - RATE * grad, "a weight after the step")


def trace_elbo(name: str) -> None:
    """Pyro's Trace_ELBO at the same seed, its gradients too."""
    exact_step(name, objectives.Trace_ELBO())


def mean_field(name: str) -> None:
    """Pyro's TraceMeanField_ELBO at the same seed; where sites are summed out, in the mean."""
    subject = make(name)
    if subject.enumerated or subject.mixture:
        mean_step(name, objectives.TraceMeanField_ELBO(), Pool.elbo)
    else:
        exact_step(name, objectives.TraceMeanField_ELBO(), pyro.infer.TraceMeanField_ELBO)


def stock(name: str) -> None:
    """Pyro's Trace_ELBO as the loss of the library's SVI."""
    exact_step(name, pyro.infer.Trace_ELBO())


def compiled(name: str) -> None:
    """A step as one graph."""
    mean_step(name, objectives.Trace_ELBO(), Pool.elbo, compile=True, kind=COMPILED[name])


def pyro_svi(name: str) -> None:
    """The library's Trace_ELBO in Pyro's own SVI, with a PyroOptim."""
    expected = truth.value(make(name), 3)
    subject = make(name)
    before = [p.detach().clone() for p in subject.used()]
    with pyro.get_param_store().scope():
        optim = pyro.optim.SGD({"lr": RATE})
        svi = pyro.infer.SVI(subject.model, subject.guide, optim, loss=objectives.Trace_ELBO())
        pyro.set_rng_seed(3)
        loss = svi.step(*subject.args)
    same(torch.tensor(loss, dtype=torch.float64), expected[0], "the loss")
    descended(subject, before, expected[1])


def elbo_module(name: str) -> None:
    """``objective(model, guide)`` as a module, with a torch optimiser over its parameters."""
    expected = truth.value(make(name), 3)
    subject = make(name)
    before = [p.detach().clone() for p in subject.used()]
    module = objectives.Trace_ELBO()(subject.model, subject.guide)
    demand(set(module.parameters()) == set(subject.parameters()), "parameters", module, subject)
    optim = torch.optim.SGD(module.parameters(), lr=RATE)
    pyro.set_rng_seed(3)
    loss = module(*subject.args)
    loss.backward()
    optim.step()
    same(loss.detach(), expected[0], "the loss")
    descended(subject, before, expected[1])


def log_px(name: str) -> None:
    """log p(x) of each datum."""
    subject = make(name, training=False)
    pyro.set_rng_seed(4)
    weights = log_likelihood(subject.model, subject.guide, *subject.args, num_samples=3000)
    expected = pool_of(name, False).log_px()
    same_mean(Mean(weights, 0.8 * expected.error), expected, "log p(x)")
    if subject.evidence is not None:
        same_mean(Mean(weights, expected.error), Mean(subject.evidence(), 0 * weights), "log p(x)")


def evaluation(name: str) -> None:
    """log p(x), ELBO and distortion of each datum."""
    subject = make(name, training=False)
    pyro.set_rng_seed(5)
    result = evaluate(subject.model, subject.guide, *subject.args, num_samples=1000, kl_draws=50)
    theirs = pool_of(name, False)
    ours = Mean(result.log_px, result.standard_error)
    same_mean(ours, theirs.log_px(), "log p(x)")
    elbo = theirs.elbo_by_datum()
    same_mean(Mean(result.elbo, 1.5 * elbo.error), elbo, "the ELBO")
    distortion = Mean.of(theirs.prior - theirs.joint)
    same_mean(Mean(result.distortion, 1.5 * distortion.error), distortion, "the distortion")


def ais(name: str) -> None:
    """log p(x) of each datum, by annealing."""
    subject = make(name, training=False)
    pyro.set_rng_seed(6)
    chains = AIS(num_particles=64, num_steps=12, num_leapfrog=3)
    weights = chains.log_weights(subject.model, subject.guide, *subject.args)
    same_mean(Mean.of_log(weights), pool_of(name, False).log_px(), "log p(x)")


def _objectives() -> Iterator[tuple[str, Use]]:
    """A step of each objective, by the mean of its loss."""
    elbo, iwae = Pool.elbo, partial(Pool.bound, K=K)
    yield "K = 5", partial(mean_step, loss=objectives.Trace_ELBO(K), expected=elbo)
    yield "IWAE", partial(mean_step, loss=objectives.IWAE(K), expected=iwae)
    yield "DReG", partial(mean_step, loss=objectives.DReG(K), expected=iwae)
    yield "STL", partial(mean_step, loss=objectives.STL(K), expected=elbo)
    renyi = partial(Pool.bound, K=K, alpha=0.5)
    yield "Renyi", partial(mean_step, loss=objectives.Renyi(K, alpha=0.5), expected=renyi)
    wake_sleep = objectives.ReweightedWakeSleep(K)
    yield "ReweightedWakeSleep", partial(mean_step, loss=wake_sleep, expected=iwae)
    score = objectives.ScoreFunction_ELBO(K)
    yield "ScoreFunction_ELBO", partial(mean_step, loss=score, expected=elbo)
    yield "FreeBits", partial(mean_step, loss=objectives.FreeBits(0.0), expected=elbo)
    info = objectives.InfoVAE(alpha=0.0, weight=1.0)
    yield "InfoVAE", partial(mean_step, loss=info, expected=elbo, copies=32, steps=16)
    yield "Stratified_ELBO", partial(mean_step, loss=objectives.Stratified_ELBO(), expected=elbo)


USES: dict[str, Use] = {
    "Trace_ELBO": trace_elbo,
    "TraceMeanField_ELBO": mean_field,
    **dict(_objectives()),
    "compiled": compiled,
    "log_likelihood": log_px,
    "evaluate": evaluation,
    "AIS": ais,
    "save and load": keep.save_and_load,
    "resume": keep.resume,
    "Pyro's SVI": pyro_svi,
    "ELBOModule": elbo_module,
    "Pyro's Trace_ELBO": stock,
}

COMPILED = {
    "plain functions": torch.optim.Adam,
    "M2, y enumerated": torch.optim.SGD,
    "AutoNormal": torch.optim.SGD,
}
"""Of each mechanism one: closures and the update of Adam in the graph, summed sites, PyroParams."""


def outcome(pair: str, use: str) -> str:
    """Run a cell: "ok", or the sentence of the refusal."""
    try:
        USES[use](pair)
    except (ValueError, TypeError) as error:
        return str(error)
    return "ok"


def cells() -> Iterator[tuple[str, str]]:
    """Every pair with every use of it; to compile takes seconds, so few pairs do."""
    for pair in PAIRS:
        for use in USES:
            if use != "compiled" or pair in COMPILED:
                yield pair, use
