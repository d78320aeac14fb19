"""Rate against distortion (Alemi et al. 2018): one VAE for each weight beta of the KL."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.optim import Adam

from pyro_vae import (
    SVI,
    VAE,
    Bernoulli,
    DiagonalNormal,
    StandardNormal,
    TraceMeanField_ELBO,
    fit,
    load_data,
    mlp,
)
from pyro_vae.data import Images, Splits
from pyro_vae.experiments.programs import Folder, ProgramOptions, program
from pyro_vae.plots import RatePoint, images, rate_distortion
from pyro_vae.training import seeded


@dataclass(frozen=True)
class Options(ProgramOptions):
    """The options of a run."""

    epochs: int = 10
    dataset: str = "mnist"
    betas: tuple[float, ...] = (0.01, 0.1, 0.5, 1.0, 2.0, 5.0, 15.0, 50.0)
    latent_dim: int = 20
    hidden: int = 200
    lr: float = 1e-3
    compile: bool = True


def main(args: Sequence[str] | None = None) -> None:
    """Train with each beta; write rate, distortion and active units of the test set."""
    with program(Options, args, __doc__) as (options, folder):
        data = load_data(
            *(options.dataset, options.data_dir), pixels="dynamic", validation_size=1 / 6
        )
        vaes = {}
        points = []
        for beta in options.betas:
            vaes[beta], point = train(options, data, beta, folder)
            points.append(point)
        table = [point._asdict() for point in points]
        folder.write({"beta of equal terms": balance(points), "points": table})
        folder.draw("rate_distortion", rate_distortion(points))
        draw_pictures(vaes, data.test, folder)


def train(options: Options, data: Splits, beta: float, folder: Folder) -> tuple[VAE, RatePoint]:
    """Train a VAE with the weight beta of the KL; return it and its point on the test set."""
    num_pixels = data.train.values.shape[1]
    with seeded(options.seed):
        vae = VAE(
            StandardNormal(options.latent_dim),
            Bernoulli(mlp(options.latent_dim, options.hidden, num_pixels)),
            DiagonalNormal.over(
                lambda outputs: mlp(num_pixels, options.hidden, outputs), options.latent_dim
            ),
        )
    svi = SVI(
        *(vae.model, vae.guide, Adam(vae.parameters(), options.lr)),
        loss=TraceMeanField_ELBO(beta=beta),
        compile=options.compile,
    )
    last = fit(
        *(svi, data.train, data.test),
        epochs=options.epochs,
        batch_size=100,
        seed=options.seed,
        folder=folder.path / f"beta{beta:g}",
        resume=True,
        progress=options.progress,
    )[-1]
    rate = known(last.validation_kl)
    distortion = -known(last.validation_log_likelihood)
    return vae, RatePoint(beta, rate, distortion, int(known(last.active_units)))


def known(value: float | None) -> float:
    """Return a number of the validation set; raise ``ValueError`` where it is None."""
    if value is None:
        raise ValueError("expected a number of the validation set, got None")
    return value


def balance(points: Sequence[RatePoint]) -> float:
    """The beta where rate and distortion are equal, interpolated in log beta; NaN out of range."""
    points = sorted(points)
    excess = np.array([point.distortion - point.rate for point in points])
    log_beta = np.log([point.beta for point in points])
    return float(np.exp(np.interp(0.0, excess, log_beta, left=np.nan, right=np.nan)))


def draw_pictures(vaes: dict[float, VAE], test: Images, folder: Folder) -> None:
    """Draw a row of test images, and below it a row of their reconstructions for each beta."""
    with torch.no_grad():
        x = test.subset(slice(12)).all()
        rows = [x, *(vae.reconstruct(x) for vae in vaes.values())]
    title = "test images, then E[x | z] for each beta"
    folder.draw("reconstructions", images(torch.cat(rows), test.shape, columns=12, title=title))


if __name__ == "__main__":
    main()
