"""Trusted values: log-densities of plain Pyro, Pyro's own ELBOs, and sums over classes."""

import math
import warnings
from dataclasses import dataclass
from functools import cached_property

import pyro
import pyro.infer
import torch
from pyro import poutine
from pyro.distributions.util import scale_and_mask
from pyro.poutine import Trace
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from .subject import ROWS, Subject

DRAWS, RUNS = 2000, 200


@dataclass(frozen=True)
class Mean:
    """An estimate and its standard error."""

    value: Tensor
    error: Tensor

    @classmethod
    def of(cls, draws: Tensor) -> "Mean":
        """The mean of independent draws, along the first dimension."""
        return cls(draws.mean(0), draws.std(0) / math.sqrt(len(draws)))

    @classmethod
    def of_log(cls, log_weight: Tensor) -> "Mean":
        """log of the mean of weights (K, B), its error by the delta method."""
        log_mean = log_weight.logsumexp(0) - math.log(len(log_weight))
        return cls(log_mean, cls.of((log_weight - log_mean).exp()).error)

    def agrees(self, other: "Mean", errors: float = 5.0) -> bool:
        """Whether two means differ by no more than some standard errors."""
        gap = (self.value - other.value).abs()
        error = (self.error.square() + other.error.square()).sqrt()
        return bool((gap <= errors * error + 1e-6).all())


@dataclass(frozen=True)
class Pool:
    """Draws of plain Pyro: log-densities of each draw and datum (N, B), and of the whole (N,)."""

    joint: Tensor
    prior: Tensor
    guide: Tensor
    bonus: Tensor
    """The guide's factors."""
    whole: Tensor
    scale: float

    @cached_property
    def log_weight(self) -> Tensor:
        """log p(x, z) - log q(z | x)."""
        return self.joint - self.guide

    def elbo(self) -> Mean:
        """Of all data."""
        return Mean.of(self.scale * (self.log_weight - self.bonus).sum(-1) + self.whole)

    def elbo_by_datum(self) -> Mean:
        """Of each datum, without the guide's factors."""
        return Mean.of(self.log_weight)

    def bound(self, K: int, alpha: float = 0.0) -> Mean:
        """log 1/K sum_k w_k^(1 - alpha) / (1 - alpha), of all data."""
        groups = self.log_weight.unflatten(0, (-1, K)) * (1 - alpha)
        return Mean.of(((groups.logsumexp(1) - math.log(K)) / (1 - alpha)).sum(-1))

    def log_px(self) -> Mean:
        """log p(x) of each datum."""
        return Mean.of_log(self.log_weight)


def pool(subject: Subject) -> Pool:
    """Run the plain programs: all draws as so many data, or one run for each draw."""
    with torch.no_grad(), pyro.get_param_store().scope(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pyro.set_rng_seed(1)
        if subject.copyable:
            return _run(subject, subject.copies(DRAWS), DRAWS)
        if subject.whole is not None:
            subject.whole(True)
        parts = [_run(subject, subject.args, 1) for _ in range(RUNS)]
        if subject.whole is not None:
            subject.whole(False)
    names = ("joint", "prior", "guide", "bonus", "whole")
    joined = {name: torch.cat([getattr(part, name) for part in parts]) for name in names}
    return Pool(**joined, scale=parts[0].scale)


def _run(subject: Subject, args: tuple[Tensor, ...], number: int) -> Pool:
    guide = poutine.trace(subject.guide).get_trace(*args)
    models = [poutine.trace(program).get_trace(*args) for program in _models(subject, guide, args)]
    parts = [_sums(trace, subject, number) for trace in models]
    names = tuple(subject.mixture)
    priors = [_sums(trace, subject, number, latent=True, names=names) for trace in models]
    log_q = _sums(guide, subject, number, skip="bonus")
    frames = [site["scale"] for site in guide.nodes.values() if site["type"] == "sample"]
    return Pool(
        joint=torch.stack([part[0] for part in parts]).logsumexp(0),
        prior=torch.stack([part[0] for part in priors]).logsumexp(0),
        guide=log_q[0],
        bonus=_sums(guide, subject, number, only="bonus")[0],
        whole=parts[0][1] - log_q[1],
        scale=max(float(scale) for scale in frames),
    )


def _models(subject: Subject, guide: Trace, args: tuple[Tensor, ...]) -> list[object]:
    """The model at the guide's draws; one for each value of its own site, which is summed out."""
    replayed = poutine.replay(subject.model, trace=guide)
    if not subject.mixture:
        return [replayed]
    ((name, values),) = subject.mixture.items()
    each = [value.expand(len(args[0]), *value.shape) for value in values]
    return [poutine.condition(replayed, {name: value}) for value in each]


def _sums(
    trace: Trace,
    subject: Subject,
    number: int,
    *,
    latent: bool = False,
    names: tuple[str, ...] = (),
    only: str | None = None,
    skip: str | None = None,
) -> tuple[Tensor, Tensor]:
    """The log-densities of the wanted sites: in the plate "data" (N, B), and of the others (N,)."""
    local = torch.zeros(number, 1, dtype=torch.float64)
    whole = torch.zeros(number, dtype=torch.float64)
    trace.compute_log_prob()
    for name, site in trace.nodes.items():
        if site["type"] != "sample" or site_is_subsample(site) or name == skip:
            continue
        if (only and name != only) or (latent and site["is_observed"] and name not in names):
            continue
        if any(frame.name == "data" for frame in site["cond_indep_stack"]):
            masked = scale_and_mask(site["unscaled_log_prob"], mask=site["mask"])
            rows = masked.movedim(subject.dim, 0)
            local = local + rows.reshape(len(rows), -1).sum(-1).reshape(number, -1)
        else:
            whole = whole + site["log_prob"].sum()
    return local, whole


Value = tuple[Tensor, list[Tensor]]


def value(subject: Subject, seed: int, elbo: type = pyro.infer.Trace_ELBO) -> Value:
    """The loss at a seed and its gradients, by Pyro's ELBO or by a sum over the classes."""
    pyro.set_rng_seed(seed)
    with pyro.get_param_store().scope(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if subject.enumerated:
            loss = over_classes(subject)
        elif subject.mixture:
            enum = pyro.infer.TraceEnum_ELBO(max_plate_nesting=-subject.dim)
            loss = enum.differentiable_loss(subject.model, subject.guide, *subject.args)
        else:
            loss = elbo().differentiable_loss(subject.model, subject.guide, *subject.args)
        return torch.as_tensor(loss).detach(), gradients(loss, subject)


def gradients(loss: Tensor, subject: Subject) -> list[Tensor]:
    """By every parameter that is trained."""
    used = subject.used()
    grads = torch.autograd.grad(loss, used, allow_unused=True)
    pairs = zip(used, grads, strict=True)
    return [torch.zeros_like(p) if g is None else g for p, g in pairs]


def over_classes(subject: Subject) -> Tensor:
    """The loss with the guide's site summed out by hand: the rows of each class, one after another.

    sum_y q(y | x) (log p(x, y, z_y) - log q(y, z_y | x))
    """
    ((name, values),) = subject.enumerated.items()
    y = values.repeat_interleave(ROWS, 0)
    args = subject.copies(len(values))
    fixed = poutine.condition(subject.guide, {name: y})
    guide = poutine.trace(fixed).get_trace(*args)
    drawn = guide.copy()
    drawn.remove_node(name)
    replayed = poutine.condition(poutine.replay(subject.model, trace=drawn), {name: y})
    model = poutine.trace(replayed).get_trace(*args)
    for trace in (model, guide):
        trace.compute_log_prob()
    log_p = sum(s["log_prob"] for s in model.nodes.values() if s["type"] == "sample")
    log_q = sum(s["log_prob"] for s in guide.nodes.values() if s["type"] == "sample")
    probability = guide.nodes[name]["log_prob"].exp()
    return -(probability * (log_p - log_q)).sum()
