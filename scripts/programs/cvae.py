"""Complete images from one, two and three quadrants by a conditional VAE and by its baseline.

The script prints the negative conditional log-likelihood of the hidden pixels, in nats per image,
beside the results of Pyro's tutorial.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from pyro_vae import (
    SVI,
    Bernoulli,
    DiagonalNormal,
    TraceMeanField_ELBO,
    fit,
    load_data,
    log_likelihood,
    mlp,
)
from pyro_vae.data import Images
from pyro_vae.experiments.programs import Folder, ProgramOptions, program
from pyro_vae.models import CVAE
from pyro_vae.plots import images
from pyro_vae.training import BEST, load_weights

PUBLISHED = {1: (100.4, 71.8), 2: (61.9, 51.0), 3: (25.4, 24.2)}
"""Baseline and CVAE in Pyro's tutorial, by the number of observed quadrants."""


@dataclass(frozen=True)
class Options(ProgramOptions):
    """The options; ``epochs`` are those of the CVAE."""

    epochs: int = 15
    data: str = "mnist"
    observed: tuple[int, ...] = (1, 2, 3)
    """The numbers of observed quadrants; a CVAE is trained for each."""
    baseline_epochs: int = 12
    patience: int = 4
    """Training stops after this many epochs without a better bound on the validation set."""
    hidden: int = 500
    latents: int = 50
    batch_size: int = 200
    learning_rate: float = 1e-3
    num_samples: int = 100
    """K for the conditional log-likelihood."""
    num_test: int = 10_000
    compile: bool = True


@dataclass(frozen=True)
class Quadrants:
    """Images as pairs (x, y) of observed and hidden pixels."""

    images: Images
    number: int
    """The number of observed quadrants: lower left, upper left, upper right, in this order."""

    def __len__(self) -> int:
        return len(self.images)

    def hidden(self) -> Tensor:
        """Which pixels are hidden, (D,)."""
        _, height, width = self.images.shape
        rows = torch.arange(height).unsqueeze(-1) < height // 2
        columns = torch.arange(width) < width // 2
        order = [~rows & columns, rows & columns, rows & ~columns]
        seen = torch.stack(order[: self.number]).any(0)
        return ~seen.expand(self.images.shape).flatten()

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """The observed and the hidden pixels of some images."""
        x, hidden = self.images.batch(indices), self.hidden()
        return x[:, ~hidden], x[:, hidden]

    def joined(self, x: Tensor, y: Tensor) -> Tensor:
        """Return whole images from their observed and hidden pixels."""
        whole, hidden = x.new_empty(len(x), x.shape[1] + y.shape[1]), self.hidden()
        whole[:, ~hidden], whole[:, hidden] = x, y
        return whole


def networks(options: Options, seen: int, hidden: int) -> CVAE:
    """Build the CVAE and its baseline, for the numbers of observed and hidden pixels."""
    units, dim = options.hidden, options.latents
    return CVAE(
        DiagonalNormal.over(lambda outputs: mlp(seen + hidden, units, outputs), dim),
        Bernoulli(mlp(seen + hidden + dim, units, units, hidden)),
        DiagonalNormal.over(lambda outputs: mlp(seen + 2 * hidden, units, outputs), dim),
        Bernoulli(mlp(seen, units, units, hidden)),
    )


def no_latents(x: Tensor, y: Tensor) -> None:
    """The guide of a model without latents."""


def train(options: Options, train: Quadrants, validation: Quadrants, folder: Path) -> CVAE:
    """Train the baseline, then the CVAE with a fixed baseline; keep the best epoch of each."""
    x, y = train.batch(torch.arange(1))
    cvae = networks(options, x.shape[1], y.shape[1])
    stages = (
        ("baseline", cvae.regression, no_latents, options.baseline_epochs),
        ("cvae", cvae.model, cvae.guide, options.epochs),
    )
    for name, model, guide, epochs in stages:
        adam = torch.optim.Adam(cvae.parameters(), lr=options.learning_rate)
        svi = SVI(model, guide, adam, loss=TraceMeanField_ELBO(), compile=options.compile)
        fit(
            svi,
            train,
            validation,
            epochs=epochs,
            batch_size=options.batch_size,
            seed=options.seed,
            patience=options.patience,
            folder=folder / name,
            resume=True,
            progress=options.progress,
        )
        load_weights(folder / name / BEST, model, guide)
    cvae.eval()
    return cvae


@torch.no_grad()
def scores(cvae: CVAE, x: Tensor, y: Tensor, num_samples: int) -> dict[str, float]:
    """Return -log p(y | x) of baseline and CVAE, and the CVAE's bound from one draw, in nats."""
    ours = log_likelihood(cvae.model, cvae.guide, x, y, num_samples=num_samples)
    bound = log_likelihood(cvae.model, cvae.guide, x, y, num_samples=1)
    gain = ours - cvae.baseline(x).log_prob(y)
    return {
        "baseline": -float(cvae.baseline(x).log_prob(y).mean()),
        "cvae": -float(ours.mean()),
        "cvae_elbo": -float(bound.mean()),
        "gain": float(gain.mean()),
        "gain_error": float(gain.std() / len(x) ** 0.5),
    }


def completions(cvae: CVAE, data: Quadrants, number: int = 10, draws: int = 5) -> Figure:
    """Draw rows: observed pixels, the baseline's mean, E[y | x, z] for draws of z, the images."""
    x, y = data.batch(torch.arange(number))
    grey = torch.full_like(y, 0.4)
    several = [cvae.complete(x, mean=True) for _ in range(draws)]
    rows = [data.joined(x, part) for part in (grey, cvae.guess(x), *several, y)]
    title = f"observed, baseline, {draws} draws of the CVAE, image"
    return images(torch.cat(rows), data.images.shape, columns=number, title=title)


def main(args: Sequence[str] | None = None) -> None:
    """Train a baseline and a CVAE for each number of quadrants; compare them on test images."""
    with program(Options, args, __doc__) as (options, folder):
        splits = load_data(options.data, options.data_dir, pixels="dynamic")
        test = splits.test.subset(slice(options.num_test))
        results = {n: one(options, n, *splits[:2], test, folder) for n in options.observed}
        print(f"{'quadrants':10}{'baseline':>10}{'CVAE':>8}{'gain':>7}  published")
        for n, result in results.items():
            ours = f"{result['baseline']:10.2f}{result['cvae']:8.2f}{result['gain']:7.2f}"
            print(f"{n:<10}{ours}  {PUBLISHED[n][0]} {PUBLISHED[n][1]}")
        named = {f"{key}_{n}": v for n, result in results.items() for key, v in result.items()}
        folder.write(named)


def one(
    options: Options, observed: int, train_set: Images, validation: Images, test: Images, to: Folder
) -> dict[str, float]:
    """Train and score the models for one number of observed quadrants; draw completions."""
    data = Quadrants(test, observed)
    parts = [replace(data, images=part) for part in (train_set, validation)]
    cvae = train(options, parts[0], parts[1], to.path / f"observed-{observed}")
    x, y = data.batch(torch.arange(len(data)))
    result = scores(cvae, x, y, options.num_samples)
    to.write(result, f"observed-{observed}.json")
    to.draw(f"completions-{observed}", completions(cvae, data))
    return result


if __name__ == "__main__":
    main()
