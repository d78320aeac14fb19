"""Auto-Encoding Variational Bayes (Kingma & Welling 2013): the bound against training samples.

One run gives one curve for each size of the latent space, on binarised MNIST. ``aevb_figure.py``
draws the curves of several runs in one figure.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import nn
from torch.optim import Adagrad, Adam, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from pyro_vae import (
    SVI,
    VAE,
    Bernoulli,
    DiagonalNormal,
    Objective,
    StandardNormal,
    TraceMeanField_ELBO,
    iter_epochs,
    load_data,
    log_likelihood,
    mlp,
)
from pyro_vae.data import Images
from pyro_vae.experiments.programs import ProgramOptions, program
from pyro_vae.experiments.storage import load_json, save_json
from pyro_vae.nets import BFloat16
from pyro_vae.objectives import ReweightedWakeSleep
from pyro_vae.training import seeded

RECORDED = {round(10 ** (i / 10)) for i in range(41)}
"""The epochs after which the bound is recorded, equally spaced on a log axis."""

Point = dict[str, float]
"""The bounds after an epoch, in nats per image, and the number of training samples so far."""


@dataclass(frozen=True)
class Options(ProgramOptions):
    """The options of a run."""

    epochs: int = 200
    """The number of epochs; 200 epochs of 50,000 samples are 10^7 samples."""
    dataset: str = "mnist"
    latent_dims: tuple[int, ...] = (3, 5, 10, 20, 200)
    hidden: int = 500
    """The number of hidden units of the encoder, and of the decoder."""
    algorithm: Literal["aevb", "wake-sleep"] = "aevb"
    optimiser: Literal["adam", "adagrad"] = "adam"
    lr: float = 1e-3
    """The learning rate; for Adam it is divided by 1 + epoch / 20."""
    num_train: int = 50_000
    """The number of training images."""
    epoch_samples: int = 50_000
    """The number of samples in an epoch, rounded down to a multiple of the number of images."""
    pixels: Literal["dynamic", "static"] = "dynamic"
    num_samples: int = 0
    """K for log p(x) of 1000 training and 1000 test images; with 0 only the bound is recorded."""
    precision: Literal["float32", "bf16"] = "float32"
    """The precision of the networks' matrix products; bf16 takes two thirds of the time."""
    compile: bool = True


def main(args: Sequence[str] | None = None) -> None:
    """Train one VAE for each size of the latent space."""
    with program(Options, args, __doc__) as (options, folder):
        data = load_data(
            *(options.dataset, options.data_dir), pixels=options.pixels, validation_size=1 / 6
        )
        train = data.train.subset(slice(options.num_train))
        curves = {}
        for dim in options.latent_dims:
            curves[dim] = train_curve(options, train, data.test, dim, folder.path / f"z{dim}")
        last = {f"test bound, z = {dim}": curve[-1]["test"] for dim, curve in curves.items()}
        folder.write({**last, "curves": curves})


def train_curve(
    options: Options, train: Images, test: Images, latent_dim: int, folder: Path
) -> list[Point]:
    """Train on ``train``; return the bounds on a part of it and on ``test``."""
    path = folder / "curve.json"
    curve: list[Point] = load_json(path)["curve"] if path.is_file() else []
    with seeded(options.seed, latent_dim):
        svi, scheduler = build(options, train.values.shape[1], latent_dim)
    copies = max(options.epoch_samples // len(train), 1)
    data = train.subset(torch.arange(copies * len(train)) % len(train))
    seen = train.subset(slice(10_000)).as_pixels("static")
    for record in iter_epochs(
        *(svi, data),
        epochs=options.epochs,
        batch_size=100,
        seed=options.seed,
        scheduler=scheduler,
        folder=folder,
        resume=True,
        progress=options.progress,
    ):
        if record.epoch in RECORDED or record.epoch == options.epochs:
            point = {"samples": float(record.epoch * len(data))}
            for name, images in (("train", seen), ("test", test)):
                point |= measure(svi, name, images.all(), options.num_samples)
            curve.append(point)
            save_json({"curve": curve}, path)
    return curve


def build(options: Options, num_pixels: int, latent_dim: int) -> tuple[SVI, LambdaLR]:
    """Build the VAE of the paper, with one hidden layer of tanh units, its SVI and scheduler."""

    def network(inputs: int, outputs: int) -> nn.Module:
        net = mlp(inputs, options.hidden, outputs, activation=nn.Tanh)
        return BFloat16(net) if options.precision == "bf16" else net

    vae = VAE(
        StandardNormal(latent_dim),
        Bernoulli(network(latent_dim, num_pixels)),
        DiagonalNormal(network(num_pixels, 2 * latent_dim)),
    )
    optim: Optimizer = Adagrad(vae.parameters(), lr=options.lr)
    if options.optimiser == "adam":
        optim = Adam(vae.parameters(), lr=options.lr)
    loss: Objective = TraceMeanField_ELBO()
    if options.algorithm == "wake-sleep":  # one draw; the guide is trained only on simulated data
        loss = ReweightedWakeSleep(num_particles=1, insomnia=0.0)
    svi = SVI(vae.model, vae.guide, optim, loss, compile=options.compile)
    decays = options.optimiser == "adam"
    return svi, LambdaLR(optim, lambda epoch: 1 / (1 + epoch / 20) if decays else 1.0)


def measure(svi: SVI, name: str, x: torch.Tensor, num_samples: int) -> Point:
    """Return the bound of x from one draw for each image, and log p(x) of 1000 images."""
    with torch.no_grad(), seeded(0):
        loss = TraceMeanField_ELBO().estimate(svi.model, svi.guide, x).loss
        point = {name: -float(loss) / len(x)}
        if num_samples:
            log_px = log_likelihood(svi.model, svi.guide, x[:1000], num_samples=num_samples)
            point[f"{name}_log_px"] = float(log_px.mean())
    return point


if __name__ == "__main__":
    main()
