"""What is pinned: each entry is a computation at fixed seeds, and one random number for its law.

All is computed in float64 on the CPU, from weights drawn in float64, so that processors and
libraries agree. The names are stable: they are the keys of the files beside this module, whatever
becomes of the package's own names.

- ``preset r3``: the first 100 losses of a preset on 32 digits of 8 x 8 pixels, with small hidden
  layers.
- ``guide iaf, objective dreg``: the same for each guide and objective of the scripts, or the
  sentence that refuses them.
- ``evaluate bottom-up``: log p(x) and the evaluation of a pair of programs.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
from programs import PER_DATUM
from torch import Tensor

# The only place that knows the package's names.
from pyro_vae import log_likelihood
from pyro_vae.data.splits import load_data
from pyro_vae.evaluation.report import evaluate
from pyro_vae.experiments import GUIDES, OBJECTIVES, SPHERICAL, Config, build_svi, build_vae
from pyro_vae.experiments.presets import PRESETS

STEPS, ROWS, BATCH, SAMPLES = 100, 32, 8, 64
PAIRS = ("vae", "bottom-up", "top-down", "pyro style", "nested plates")
SMALL_HIDDEN = {"r1": (8,), "r2": (16, 8), "r5": (8,)}
ANALYTIC_OR_ELBO, SINGLE = ("elbo", "analytic"), ("free_bits", "infovae")
PER_DATUM_NAMES = (
    "distortion",
    "standard_error",
    "bias",
    "effective_sample_size",
    "pareto_k",
    "smoothed_log_px",
)

Value = dict[str, Any]


@dataclass(frozen=True)
class Entry:
    """A computation that gives JSON, and a random number whose law tells how it is drawn."""

    file: str
    values: Callable[[], Value]
    statistic: Callable[[], Callable[[int], float]]
    """Builds a function of a seed."""


@contextmanager
def float64() -> Iterator[None]:
    """New tensors are float64: float32 draws of weights can differ between processors."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


# Training


def _trained(config: Config) -> Value:
    """The losses of the first steps, or the refusal."""
    try:
        svi, batches = _inference(config)
        torch.manual_seed(0)
        return {"losses": [float(svi.step(x)) for x in batches]}
    except (TypeError, ValueError) as error:
        return {"refused": type(error).__name__, "sentence": str(error)}


def _untrained_loss(config: Config) -> Callable[[int], float]:
    """The loss of the first batch before any step, networks in eval mode, for a seed."""
    svi, batches = _inference(config)

    def loss(seed: int) -> float:
        torch.manual_seed(seed)
        return float(svi.evaluate_loss(batches[0]))

    return loss


@cache
def _digits(pixels: str) -> Any:
    return load_data("digits", pixels=pixels).train.subset(slice(ROWS))


def _inference(config: Config) -> tuple[Any, list[Tensor]]:
    """The inference of a configuration, and the batches of its steps, drawn by themselves."""
    train = _digits(config.pixels)
    torch.manual_seed(1)
    rows = torch.arange(ROWS).split(BATCH)
    batches = [train.batch(rows[step % len(rows)]).double() for step in range(STEPS)]
    with float64():
        vae = build_vae(config, train).double()
    svi, _ = build_svi(config, vae, len(train))
    return svi, batches


def _preset(name: str) -> Config:
    """A preset on the digits; those that binarise MNIST anew at each visit do the same here."""
    preset = PRESETS[name]
    hidden = SMALL_HIDDEN.get(name, preset.hidden)
    pixels = preset.pixels or "dynamic"
    return replace(preset, dataset="digits", pixels=pixels, hidden=hidden, batch_size=BATCH)


def _combination(guide: str, objective: str) -> Config:
    """A guide and an objective, with plain SGD: Adam would not see a gradient's scale."""
    particles = 1 if objective in SINGLE else 2 if objective in ANALYTIC_OR_ELBO else 3
    return Config(
        pixels="threshold",
        hidden=(8,),
        latent_dim=3,
        guide=guide,
        prior="sphere" if guide in SPHERICAL else "standard",
        objective=objective,
        num_particles=particles,
        optimiser="sgd",
        lr=1e-3,
        batch_size=BATCH,
    )


def _training(file: str, config: Config) -> Entry:
    return Entry(file, lambda: _trained(config), lambda: _untrained_loss(config))


# Evaluation


def _evaluated(name: str) -> Value:
    """log p(x) of each datum, and all that the evaluation reports, each from its own seed."""
    with float64():
        pair = PER_DATUM[name]()
    torch.manual_seed(0)
    log_px = log_likelihood(pair.model, pair.guide, *pair.args, num_samples=SAMPLES)
    torch.manual_seed(0)
    result = evaluate(pair.model, pair.guide, *pair.args, num_samples=SAMPLES)
    return {
        "log_likelihood": log_px.tolist(),
        **{f"bound {size}": bound.tolist() for size, bound in result.bounds.items()},
        **{key: getattr(result, key).tolist() for key in PER_DATUM_NAMES},
        "summary": result.summary(),
    }


def _mean_log_px(name: str) -> Callable[[int], float]:
    """The mean of log p(x) over the data, for a seed."""
    with float64():
        pair = PER_DATUM[name]()

    def mean(seed: int) -> float:
        torch.manual_seed(seed)
        options = {"num_samples": SAMPLES}
        return float(log_likelihood(pair.model, pair.guide, *pair.args, **options).mean())

    return mean


def _evaluation(name: str) -> Entry:
    return Entry("evaluate", lambda: _evaluated(name), lambda: _mean_log_px(name))


ENTRIES: dict[str, Entry] = (
    {f"preset {name}": _training("presets", _preset(name)) for name in PRESETS}
    | {
        f"guide {guide}, objective {objective}": _training("guides", _combination(guide, objective))
        for guide in GUIDES
        for objective in OBJECTIVES
    }
    | {f"evaluate {name}": _evaluation(name) for name in PAIRS}
)
