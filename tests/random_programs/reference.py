"""Trusted numbers: log weights per datum and draw in plain Pyro, and Pyro's own ELBOs."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.distributions.util import scale_and_mask
from pyro.infer import Trace_ELBO, TraceEnum_ELBO, TraceMeanField_ELBO
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from .build import Pair, plain
from .outcome import Failed
from .spec import Spec

COPIES = 16  # of every datum in one call, which are as many draws


@dataclass(frozen=True)
class Statistic:
    """A mean over draws and its standard error."""

    mean: Tensor
    error: Tensor

    @classmethod
    def of(cls, draws: Tensor) -> "Statistic":
        """From independent draws along the first dimension."""
        return cls(draws.mean(0), draws.std(0) / len(draws) ** 0.5)

    def agrees(self, other: "Statistic", errors: float = 4.0) -> bool:
        """Whether two means lie within some standard errors."""
        gap = (self.mean - other.mean).abs()
        return bool(
            (gap <= errors * (self.error.square() + other.error.square()).sqrt() + 1e-6).all()
        )


def exactly(value: Tensor) -> Statistic:
    """A value without error."""
    return Statistic(value, torch.zeros_like(value))


@dataclass(frozen=True)
class Pool:
    """Draws of plain Pyro: log p(x, z), log q(z | x), guide factors; (N, B), global ones (N,)."""

    log_joint: Tensor
    log_guide: Tensor
    guide_factor: Tensor
    global_weight: Tensor
    global_guide_factor: Tensor
    model_constant: Tensor
    """The model's factor outside the plate, which no draw moves."""

    @property
    def log_weight(self) -> Tensor:
        """log w by datum, without the guide's factors, (N, B)."""
        return self.log_joint - self.log_guide

    def bound(self, K: int, alpha: float, *, factors: bool, joint: bool) -> Statistic:
        """log 1/K sum_k w_k^(1-alpha) / (1-alpha), summed; ``joint``: one weight for all data."""
        log_weight = self.log_weight - (self.guide_factor if factors else 0)
        if joint:
            outside = self.global_weight - (self.global_guide_factor if factors else 0)
            log_weight = (log_weight.sum(-1) + outside + self.model_constant).unsqueeze(-1)
        groups = log_weight[: len(log_weight) // K * K].unflatten(0, (-1, K)) * (1 - alpha)
        total = ((groups.logsumexp(1) - torch.tensor(K).log()) / (1 - alpha)).sum(-1)
        constant = (
            0.0
            if joint
            else self.model_constant[0] - (self.global_guide_factor[0] if factors else 0)
        )
        return Statistic.of(total + constant)


def pool(spec: Spec, seed: int, num: int = 400) -> Pool:
    """Draw from the plain pair: all at once, or one after another with global latents."""
    pair = plain(
        spec, subsample=False, strict=False, labels=spec.labels, keyword=False, enumerate=False
    )
    pyro.set_rng_seed(seed)
    with torch.no_grad(), pyro.get_param_store().scope():
        if spec.local:
            return _pool(pair, *pair.copies(num), num)
        parts = [_pool(pair, pair.args, pair.kwargs, 1) for _ in range(min(num // 4, 300))]
    names = parts[0].__dataclass_fields__
    return Pool(**{name: torch.cat([getattr(part, name) for part in parts]) for name in names})


def _pool(pair: Pair, args: Any, kwargs: Any, num: int) -> Pool:
    guide = poutine.trace(pair.guide).get_trace(*args, **kwargs)
    model = poutine.trace(poutine.replay(pair.model, trace=guide)).get_trace(*args, **kwargs)
    B = len(pair.args[0])
    sums = {key: torch.zeros(num, B, dtype=torch.float64) for key in ("joint", "guide", "bonus")}
    outside = {
        key: torch.zeros(num, dtype=torch.float64)
        for key in ("joint", "guide", "bonus", "preference")
    }
    for part, trace in (("joint", model), ("guide", guide)):
        for name, site in trace.nodes.items():
            if site["type"] != "sample" or site_is_subsample(site):
                continue
            value = scale_and_mask(site["fn"].log_prob(site["value"]), 1.0, site["mask"])
            key = name if name == "bonus" else part
            if any(frame.name == "data" for frame in site["cond_indep_stack"]):
                value = value.movedim(pair.spec.data_dim, 0)
                rows = value.reshape(len(value), -1).sum(1)
                sums[key] = sums[key] + rows.expand(num * B).unflatten(0, (num, B))
            else:
                outside[name if name == "preference" else key] += value.sum()
    return Pool(
        sums["joint"],
        sums["guide"],
        sums["bonus"],
        outside["joint"] - outside["guide"],
        outside["bonus"],
        outside["preference"],
    )


def pyro_loss(
    pair: Pair, seed: int, call: tuple[Any, Any] | None = None, analytic: bool = False
) -> tuple[Tensor, list[Tensor]]:
    """Pyro's own loss and gradients at a seed, by enumeration where the guide asks for it."""
    elbo = (
        TraceEnum_ELBO(max_plate_nesting=pair.spec.nesting) if pair.spec.enumerate else Trace_ELBO()
    )
    elbo = TraceMeanField_ELBO() if analytic else elbo
    args, kwargs = call or (pair.args, pair.kwargs)
    with pyro.get_param_store().scope():
        pyro.set_rng_seed(seed)
        with warnings.catch_warnings():  # Pyro warns of sites in another order
            warnings.simplefilter("ignore")
            return with_gradients(
                elbo.differentiable_loss(pair.model, pair.guide, *args, **kwargs), pair.parameters
            )


def with_gradients(loss: Tensor, parameters: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """A loss and its gradients by the parameters, zero where there are none."""
    grads = (
        torch.autograd.grad(loss, parameters, allow_unused=True)
        if loss.requires_grad
        else [None] * len(parameters)
    )
    return loss.detach(), [
        torch.zeros_like(p) if g is None else g for p, g in zip(parameters, grads, strict=True)
    ]


def repeated(one: Callable[[int], tuple[Tensor, list[Tensor]]], seed: int, num: int) -> Statistic:
    """The loss and all gradients, side by side, over ``num`` seeds."""
    rows = []
    for i in range(num):
        loss, grads = one(seed + i)
        rows.append(torch.cat([loss.reshape(1).double(), *(grad.flatten() for grad in grads)]))
    return Statistic.of(torch.stack(rows))


def different(ours: Statistic, theirs: Statistic, what: str = "") -> None:
    """Raise ``Failed`` with the entry that differs most."""
    gap = (ours.mean - theirs.mean).abs() / (
        (ours.error.square() + theirs.error.square()).sqrt() + 1e-6
    )
    worst = int(gap.argmax())
    what = what or ("the loss" if worst == 0 else "a gradient")
    a, b = (
        f"{float(s.mean.flatten()[worst]):.4f} +- {float(s.error.flatten()[worst]):.4f}"
        for s in (ours, theirs)
    )
    raise Failed(f"{what} is {a}, the reference {b}")
