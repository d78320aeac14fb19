"""Train the deep Markov model on Bach's chorales, with and without a flow in its guide."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pyro_vae import SVI, Bernoulli, DiagonalNormal, Trace_ELBO, evaluate, fit, mlp
from pyro_vae.data.chorales import Buckets, Rolls, load_chorales, save_midi, scales
from pyro_vae.experiments.programs import ProgramOptions, program
from pyro_vae.families import IAF
from pyro_vae.models import DeepMarkovModel
from pyro_vae.nets import FutureGRU, GatedTransition, set_output_bias
from pyro_vae.objectives import linear
from pyro_vae.plots.history import compared
from pyro_vae.plots.piano import piano_rolls
from pyro_vae.programs.isolation import looking
from pyro_vae.training.checkpoint import BEST, load_weights

PUBLISHED = {0: 6.87, 1: 6.82, 2: 6.80}
"""-ELBO per time step of the test set, by number of IAF layers, after 5,000 epochs (Pyro)."""


@dataclass(frozen=True)
class Options(ProgramOptions):
    """The options of this script."""

    epochs: int = 160
    data: str = "chorales"
    """chorales (in the folder of data) or scales (generated, without a file)."""
    layers: tuple[int, ...] = (0, 1)
    """The number of IAF layers of the guide, one run for each; 0 is a diagonal normal."""
    dim: int = 64
    """The number of dimensions of z_t."""
    hidden: int = 200
    dropout: float = 0.1
    """The dropout rate of the guide's recurrent outputs."""
    batch_size: int = 20
    learning_rate: float = 2e-3
    decay: float = 0.99
    """The learning rate is multiplied by this factor after each epoch."""
    warm_up: float = 0.2
    """The fraction of the steps in which beta grows from 0.2 to 1."""
    num_samples: int = 100
    """K for log p(x)."""
    length: int = 48
    """The length of the generated chorales, in quarter notes."""


def load(options: Options) -> tuple[Rolls, Rolls, Rolls]:
    """The sequences for training, validation and testing."""
    if options.data == "scales":
        return scales(60, seed=1), scales(20, seed=2), scales(20, seed=3)
    if options.data != "chorales":
        raise ValueError(f"expected data to be chorales or scales, got {options.data}")
    return load_chorales(options.data_dir or Path("data"))


def build(options: Options, train: Rolls, layers: int) -> DeepMarkovModel:
    """Build the model, whose emission starts at the mean of each key, and its guide."""
    dim, hidden, keys = options.dim, options.hidden, train.x.shape[-1]
    emission = mlp(dim, hidden // 2, hidden // 2, keys)
    mean = train.x.sum((0, 1)) / train.lengths.sum()
    set_output_bias(emission, mean.clamp(1e-3, 1 - 1e-3).logit())
    posterior: nn.Module
    if layers:
        sizes = {"depth": layers, "context": 32}
        posterior = IAF.over(lambda n: nn.Linear(hidden, n), dim, hidden=(hidden // 2,), **sizes)
    else:
        posterior = DiagonalNormal.over(lambda n: nn.Linear(hidden, n), dim)
    return DeepMarkovModel(
        DiagonalNormal(GatedTransition(dim, hidden)),
        Bernoulli(emission),
        FutureGRU(keys, hidden, dropout=options.dropout),
        posterior,
        dim=dim,
        hidden=hidden,
    )


def train_one(
    options: Options, train: Rolls, validation: Rolls, layers: int, path: Path
) -> tuple[DeepMarkovModel, list[Any]]:
    """Train one model; return it with the weights of its best epoch, and its history."""
    dmm = build(options, train, layers)
    buckets = Buckets(train, options.batch_size)
    beta = linear(max(1, round(options.warm_up * options.epochs * len(buckets))), start=0.2)
    adam = torch.optim.Adam(dmm.parameters(), lr=options.learning_rate, fused=True)
    svi = SVI(dmm.model, dmm.guide, adam, loss=Trace_ELBO(beta=beta), clip_norm=2000.0)
    history = fit(
        *(svi, buckets, tuple(validation)),
        epochs=options.epochs,
        batch_size=1,
        seed=options.seed,
        scheduler=torch.optim.lr_scheduler.ExponentialLR(adam, options.decay),
        folder=path,
        resume=True,
        progress=options.progress,
    )
    load_weights(path / BEST, dmm.model, dmm.guide)
    return dmm, history


def score(options: Options, dmm: DeepMarkovModel, test: Rolls, layers: int) -> dict[str, float]:
    """Evaluate the test sequences, in nats per time step."""
    result = evaluate(*(dmm.model, dmm.guide, *test), num_samples=options.num_samples, kl_draws=0)
    steps = float(test.lengths.sum())
    known = options.data == "chorales" and layers in PUBLISHED
    published = {"published, after 5,000 epochs": PUBLISHED[layers]} if known else {}
    return {
        "IAF layers": layers,
        "-ELBO per step": -float(result.elbo.sum()) / steps,
        f"-log p(x) per step, K = {options.num_samples}": -float(result.log_px.sum()) / steps,
        "KL per step": float(result.rate.sum()) / steps,
        **published,
    }


def main(args: Sequence[str] | None = None) -> None:
    """Train and evaluate each run; then generate a chorale and draw the training curves."""
    with program(Options, args, __doc__) as (options, folder):
        train, validation, test = load(options)
        scores, histories, chorales = {}, {}, {"of the test set": test.x[0, : test.lengths[0]]}
        for layers in options.layers:
            name = f"{layers} IAF layers"
            path = folder.path / f"iaf_{layers}"
            dmm, histories[name] = train_one(options, train, validation, layers, path)
            seconds = sum(record.seconds for record in histories[name])
            scores[name] = {**score(options, dmm, test, layers), "seconds": seconds}
            folder.write(scores[name], f"iaf_{layers}.json")
            with looking([dmm]):
                (chorales[f"generated, {name}"],) = dmm.generate(1, options.length)
        folder.write({"test sequences": len(test.x), **scores})
        per_step = float(validation.lengths.float().mean())
        folder.draw("training", compared(histories, "epoch", per_step))
        folder.draw("seconds", compared(histories, "seconds", per_step))
        folder.draw("chorales", piano_rolls(chorales))
        for title, roll in chorales.items():
            save_midi(folder.path / f"{title.replace(', ', '_').replace(' ', '_')}.mid", roll)


if __name__ == "__main__":
    main()
