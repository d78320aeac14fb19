"""Classify MNIST from 100 labels by a semi-supervised VAE: M2, or with --stacked M1 + M2.

The script prints the accuracy on the test images, for several draws of the labels, beside published
results.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor, nn

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
from pyro_vae.data import Data, Images
from pyro_vae.experiments.programs import ProgramOptions, program
from pyro_vae.families import OneHotCategorical, UniformOneHot
from pyro_vae.models import M2
from pyro_vae.plots import images
from pyro_vae.plots.mosaic import Shape
from pyro_vae.training import (
    LAST,
    epoch_batches,
    latest,
    load_latest,
    restore_svi,
    save_checkpoint,
    seeded,
    svi_state,
    take,
)

PUBLISHED = {
    False: "93.19 +- 0.6 (Pyro's example), 88.03 +- 1.71 (Kingma et al. 2014)",
    True: "96.67 +- 0.14 (Kingma et al. 2014)",
}
"""M2, and M1 + M2, with 100 labels."""

Score = Callable[[M2], float]


@dataclass(frozen=True)
class Options(ProgramOptions):
    """The options; ``epochs`` are those of M2."""

    epochs: int = 20
    data: str = "mnist"
    stacked: bool = False
    """Train M1, a VAE, and then M2 on its latents."""
    m1_epochs: int = 20
    m1_hidden: int = 500
    num_labels: int = 100
    draws: tuple[int, ...] = (0, 1, 2)
    """The seeds of the draws of labels, which have equally many of each class."""
    auxiliary: float = 50.0
    """The weight alpha of log q(y | x) for the data with labels."""
    hidden: int = 300
    latents: int = 50
    batch_size: int = 200
    labelled_size: int = 100
    """The batch size of a step on data with labels."""
    labelled_every: int = 2
    """The number of steps without labels before each step with labels."""
    dropout: float = 0.0
    """The dropout rate of the hidden units of q(y | x)."""
    learning_rate: float = 1e-3
    compile: bool = True


@dataclass(frozen=True)
class Latents:
    """Data that are draws z1 ~ q(z1 | x), drawn again in each batch."""

    loc: Tensor
    scale: Tensor

    def __len__(self) -> int:
        return len(self.loc)

    def batch(self, indices: Tensor) -> Tensor:
        """Return one draw for each of some data."""
        loc = self.loc[indices]
        return loc + self.scale[indices] * torch.randn_like(loc)


def balanced(labels: Tensor, number: int, seed: int) -> Tensor:
    """Return the indices of ``number`` data, equally many of each class."""
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    classes = int(labels.max()) + 1
    return torch.cat([order[labels[order] == y][: number // classes] for y in range(classes)])


def classifier(size: int, options: Options, classes: int) -> OneHotCategorical:
    """Build q(y | x)."""
    units = options.hidden
    dropout = nn.Dropout(options.dropout)
    net = nn.Sequential(nn.Linear(size, units), nn.ReLU(), dropout, nn.Linear(units, classes))
    return OneHotCategorical(net)


def m2_of(options: Options, size: int, classes: int) -> M2:
    """Build M2 for binary pixels, or for the latents of M1."""
    units, dim = options.hidden, options.latents
    wide = mlp(classes + dim, units, 2 * size if options.stacked else size)
    return M2(
        UniformOneHot(classes),
        StandardNormal(dim),
        DiagonalNormal(wide) if options.stacked else Bernoulli(wide),
        classifier(size, options, classes),
        DiagonalNormal(mlp(size + classes, units, 2 * dim)),
        options.auxiliary,
    )


def m1_of(options: Options, size: int) -> VAE:
    """Build M1, a VAE."""
    units, dim = options.m1_hidden, options.latents
    decoder, encoder = mlp(dim, units, units, size), mlp(size, units, units, 2 * dim)
    return VAE(StandardNormal(dim), Bernoulli(decoder), DiagonalNormal(encoder))


def train_m1(vae: VAE, options: Options, train: Images, validation: Images, folder: Path) -> None:
    """Train M1 without labels."""
    adam = torch.optim.Adam(vae.parameters(), lr=options.learning_rate)
    svi = SVI(vae.model, vae.guide, adam, loss=TraceMeanField_ELBO(), compile=options.compile)
    fit(
        svi,
        train,
        validation,
        epochs=options.m1_epochs,
        batch_size=options.batch_size,
        seed=options.seed,
        folder=folder,
        resume=True,
        progress=options.progress,
    )
    vae.eval()


def train_m2(
    m2: M2, options: Options, x: Data, some: Tensor, y: Tensor, folder: Path, score: Score
) -> list[float]:
    """Alternate steps on data without labels and steps on the data ``some`` with labels y.

    Return the score after each epoch.
    """
    adam = torch.optim.Adam(m2.parameters(), lr=options.learning_rate)
    svi = SVI(m2.model, m2.guide, adam, loss=TraceMeanField_ELBO(), compile=options.compile)
    scores: list[float] = []
    folder.mkdir(parents=True, exist_ok=True)
    if found := latest(folder):
        state = load_latest(found)
        restore_svi(svi, state, found)
        scores = state["scores"]
    for epoch in range(len(scores) + 1, options.epochs + 1):
        m2.train()
        with seeded(options.seed, epoch):
            batches = epoch_batches(len(x), options.batch_size, options.seed, epoch)
            for step, rows in enumerate(batches, 1):
                svi.step(*take(x, rows))
                if step % options.labelled_every == 0:
                    chosen = torch.randint(len(some), (options.labelled_size,))
                    svi.step(*take(x, some[chosen]), y[chosen])
        m2.eval()
        scores.append(score(m2))
        print(f"{folder.name}: epoch {epoch}, accuracy {scores[-1]:.2%}", flush=True)
        save_checkpoint(folder / LAST, svi_state(svi) | {"scores": scores})
    return scores


@torch.no_grad()
def latents(vae: VAE, images: Images) -> Latents:
    """Return q(z1 | x) of the grey images."""
    q = vae.encoder(images.as_pixels("grey").all()).base_dist
    return Latents(q.loc, q.scale)


@torch.no_grad()
def by_class(m2: M2, vae: VAE | None, shape: Shape, rows: int = 8) -> Figure:
    """Draw E[x | y, z], one row for each z ~ p(z) and one column for each class."""
    classes = len(m2.prior_y().probs)
    z = m2.prior_z().sample((rows,)).repeat_interleave(classes, 0)
    mean = m2.decoder(torch.eye(classes).repeat(rows, 1), z).mean
    pictures = mean if vae is None else vae.decoder(mean).mean
    return images(pictures, shape, columns=classes, title="E[x | y, z], one z in each row")


@dataclass(frozen=True)
class Task:
    """The training and test data of M2: images, or the latents of M1."""

    x: Data
    labels: Tensor
    test: Tensor
    truth: Tensor

    def accuracy(self, m2: M2) -> float:
        """The share of the test set that is classified correctly."""
        return float((m2.classify(self.test) == self.truth).float().mean())


def task_of(options: Options, folder: Path) -> tuple[Task, VAE | None, Shape]:
    """Return the data of M2, M1 (None without ``stacked``) and the shape of the images."""
    grey = load_data(options.data, options.data_dir, pixels="grey")
    train, validation, _ = (part.as_pixels("dynamic") for part in grey)
    labels, truth = grey.train.labels, grey.test.labels
    if labels is None or truth is None:
        raise ValueError(f"expected images with labels, got {options.data} without")
    if not options.stacked:
        return Task(train, labels, grey.test.all(), truth), None, train.shape
    vae = m1_of(options, train.values.shape[1])
    train_m1(vae, options, train, validation, folder / "m1")
    test = latents(vae, grey.test).loc
    return Task(latents(vae, train), labels, test, truth), vae, train.shape


def main(args: Sequence[str] | None = None) -> None:
    """Train M2 for each draw of the labels; compute the accuracy on the test images."""
    with program(Options, args, __doc__) as (options, folder):
        task, vae, shape = task_of(options, folder.path)
        scores = []
        for draw in options.draws:
            some = balanced(task.labels, options.num_labels, draw)
            y = F.one_hot(task.labels[some]).float()
            m2 = m2_of(options, task.test.shape[1], y.shape[1])
            path = folder.path / f"labels-{draw}"
            scores.append(train_m2(m2, options, task.x, some, y, path, task.accuracy))
        last = torch.tensor([each[-1] for each in scores])
        spread = float(last.std()) if len(last) > 1 else 0.0
        published = PUBLISHED[options.stacked]
        print(f"accuracy {last.mean():.2%} +- {spread:.2%}; published {published}")
        mean = float(last.mean())
        folder.write({"accuracy": mean, "standard_deviation": spread, "by_epoch": scores})
        folder.draw("by_class", by_class(m2, vae, shape))


if __name__ == "__main__":
    main()
