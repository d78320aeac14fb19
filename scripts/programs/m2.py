"""Classify MNIST from 100 labels by a semi-supervised VAE: M2, or with --stacked M1 + M2.

It prints the accuracy on the test images, several draws of the labels, beside published results.
"""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from pyro_vae import SVI, VAE, Bernoulli, DiagonalNormal, StandardNormal, training
from pyro_vae.data import Data, Images, Labelled, NormalDraws, load_data, take
from pyro_vae.experiments.programs import ProgramOptions, program
from pyro_vae.families import OneHotCategorical, UniformOneHot
from pyro_vae.models import M2
from pyro_vae.nets import BFloat16, mlp
from pyro_vae.objectives import TraceMeanField_ELBO
from pyro_vae.plots import images
from pyro_vae.plots.mosaic import Shape

PUBLISHED = {
    False: "93.19 +- 0.6 (Pyro's example), 88.03 +- 1.71 (Kingma et al. 2014)",
    True: "96.67 +- 0.14 (Kingma et al. 2014)",
}
"""M2, and M1 + M2, with 100 labels."""


@dataclass(frozen=True)
class Options(ProgramOptions):
    """The options; ``epochs`` are those of M2."""

    epochs: int = 20
    data: str = "mnist"
    stacked: bool = False  # Train M2 on the latents of M1
    m1_epochs: int = 20
    """The epochs of M1, a VAE; q(y | x) of pixels starts with the hidden layers of its encoder."""
    m1_hidden: int = 500
    m1_latents: int = 50
    m1_beta: float = 1.0  # The weight of the KL of M1; below 1 its latents keep more of the image
    label_steps: int = 0  # The steps that first train q(y | x) on the labels alone
    guess_epochs: int = 0
    """The epochs, before M2, that train the other networks on guesses y ~ q(y | x)."""
    num_labels: int = 100
    draws: tuple[int, ...] = (0, 1, 2)
    """The seeds of the draws of labels, which have equally many of each class."""
    auxiliary: float = 50.0  # The weight alpha of log q(y | x) for the data with labels
    hidden: int = 300
    layers: int = 1  # The number of hidden layers of p(x | y, z) and q(z | x, y)
    latents: tuple[int, ...] = (50,)
    """The sizes of z: M2 is trained with each in turn. q(y | x) goes on, the others start anew."""
    batch_size: int = 200
    labelled_size: int = 100  # The batch size of a step on data with labels
    labelled_every: int = 2  # The number of steps without labels before each step with labels
    dropout: float = 0.0  # The dropout rate of the hidden units of q(y | x)
    learning_rate: float = 1e-3
    classifier_rate: float = 1e-3  # The learning rate of q(y | x)
    average: float = 0.0  # The weight of the past in the average of q(y | x) that classifies
    precision: Literal["float32", "bf16"] = "float32"
    """The precision of the networks' matrix products."""
    compile: bool = True


@dataclass(frozen=True)
class Task:
    """The training and test data of M2: images, or the latents of M1."""

    x: Data
    labels: Tensor
    test: Tensor
    truth: Tensor

    @torch.no_grad()
    def accuracy(self, encoder_y: nn.Module) -> float:
        """The share of the test set that q(y | x) classifies correctly."""
        encoder_y.eval()
        found: Tensor = encoder_y(self.test).probs.argmax(-1)
        return float((found == self.truth).float().mean())


def network(options: Options, net: nn.Module) -> nn.Module:
    """Let a network compute in the precision of the options."""
    return BFloat16(net) if options.precision == "bf16" else net


def classifier(options: Options, size: int, classes: int, m1: VAE) -> OneHotCategorical:
    """Build q(y | x); for pixels its hidden layers start as those of the encoder of M1."""
    hidden, units = [nn.Linear(size, options.hidden), nn.ReLU()], options.hidden
    if not options.stacked:
        layers = [each for each in m1.encoder.modules() if not list(each.children())]
        hidden, units = deepcopy(layers[:-1]), options.m1_hidden
    net = nn.Sequential(*hidden, nn.Dropout(options.dropout), nn.Linear(units, classes))
    return OneHotCategorical(network(options, net))


def m2_of(options: Options, size: int, encoder_y: OneHotCategorical, classes: int, dim: int) -> M2:
    """Build M2 for binary pixels, or for the latents of M1."""
    units = [options.hidden] * options.layers
    wide = network(options, mlp(classes + dim, *units, 2 * size if options.stacked else size))
    return M2(
        UniformOneHot(classes),
        StandardNormal(dim),
        DiagonalNormal(wide) if options.stacked else Bernoulli(wide),
        encoder_y,
        DiagonalNormal(network(options, mlp(size + classes, *units, 2 * dim))),
        options.auxiliary,
    )


def svi_of(pair: M2 | VAE, options: Options, *trained: nn.Module, beta: float = 1.0) -> SVI:
    """The inference that trains these modules with Adam."""
    groups = [{"params": [*module.parameters()]} for module in trained]
    adam = torch.optim.Adam(groups, lr=options.learning_rate)
    loss = TraceMeanField_ELBO(beta=beta)
    return SVI(pair.model, pair.guide, adam, loss=loss, compile=options.compile)


def train_m1(options: Options, train: Images, validation: Images, folder: Path) -> VAE:
    """Build M1, a VAE, and train it without labels."""
    units, dim, size = options.m1_hidden, options.m1_latents, train.values.shape[1]
    decoder = Bernoulli(network(options, mlp(dim, units, units, size)))
    encoder = DiagonalNormal(network(options, mlp(size, units, units, 2 * dim)))
    vae = VAE(StandardNormal(dim), decoder, encoder)
    training.fit(
        *(svi_of(vae, options, vae, beta=options.m1_beta), train, validation),
        epochs=options.m1_epochs,
        batch_size=options.batch_size,
        seed=options.seed,
        folder=folder,
        resume=True,
        progress=options.progress,
    )
    vae.eval()
    return vae


def start(m2: M2, options: Options, data: Labelled, steps: int) -> None:
    """Train q(y | x) on the labels, then p(x | y, z) and q(z | x, y) on guesses y ~ q(y | x)."""
    adam = torch.optim.Adam(m2.encoder_y.parameters(), lr=options.learning_rate)
    for _ in range(steps):
        adam.zero_grad()
        (-m2.encoder_y(*take(data.x, data.some)).log_prob(data.y).mean()).backward()
        adam.step()
    m2.eval()
    plain = M2(m2.prior_y, m2.prior_z, m2.decoder, m2.encoder_y, m2.encoder_z)
    svi = svi_of(plain, options, m2.decoder, m2.encoder_z)
    for epoch in range(1, options.guess_epochs + 1):
        for rows in training.epoch_batches(len(data.x), options.batch_size, options.seed, epoch):
            (images,) = take(data.x, rows)
            svi.step(images, m2.encoder_y(images).sample())


def train_m2(
    m2: M2, options: Options, data: Labelled, epoch: int, svi: SVI, average: AveragedModel
) -> None:
    """Alternate steps on data without labels and steps on data with labels."""
    m2.train()
    with training.seeded(options.seed, epoch):
        batches = training.epoch_batches(len(data.x), options.batch_size, options.seed, epoch)
        for step, rows in enumerate(batches, 1):
            svi.step(*take(data.x, rows))
            if step % options.labelled_every == 0:
                svi.step(*data.draw(options.labelled_size))
            average.update_parameters(m2.encoder_y)
    m2.eval()


def train_draw(
    options: Options, task: Task, m1: VAE, draw: int, folder: Path
) -> tuple[M2, list[float]]:
    """Train M2 with each size of z in turn; return it, and the accuracy after each epoch."""
    data = Labelled.of(task.x, task.labels, options.num_labels, draw)
    size, classes = task.test.shape[1], data.y.shape[1]
    encoder_y = classifier(options, size, classes, m1)
    scores: list[float] = []
    resumed = True
    for stage, dim in enumerate(options.latents):
        m2 = m2_of(options, size, encoder_y, classes, dim)
        svi = svi_of(m2, options, m2.decoder, m2.encoder_z, encoder_y)
        svi.optim.param_groups[-1]["lr"] = options.classifier_rate
        average = AveragedModel(encoder_y, multi_avg_fn=get_ema_multi_avg_fn(options.average))
        path = folder / f"z{dim}"
        path.mkdir(parents=True, exist_ok=True)
        if resumed and (found := training.latest(path)):
            state = training.load_latest(found)
            training.restore_svi(svi, state, found)
            average.load_state_dict(state["average"])
            scores = state["scores"]
        else:
            with training.seeded(options.seed, 0):
                start(m2, options, data, 0 if stage else options.label_steps)
            print(f"{path}: before M2, accuracy {task.accuracy(encoder_y):.2%}", flush=True)
        for epoch in range(len(scores) + 1, options.epochs * (stage + 1) + 1):
            train_m2(m2, options, data, epoch, svi, average)
            resumed = False
            scores.append(task.accuracy(average))
            print(f"{path}: epoch {epoch}, accuracy {scores[-1]:.2%}", flush=True)
            state = training.svi_state(svi) | {"scores": scores, "average": average.state_dict()}
            training.save_checkpoint(path / training.LAST, state)
        encoder_y.load_state_dict(average.module.state_dict())
    return m2, scores


@torch.no_grad()
def latents(vae: VAE, images: Images) -> NormalDraws:
    """Return q(z1 | x) of the grey images."""
    q = vae.encoder(images.as_pixels("grey").all()).base_dist
    return NormalDraws(q.loc, q.scale)


def task_of(options: Options, folder: Path) -> tuple[Task, VAE, Shape]:
    """Return the data of M2, M1, and the shape of the images."""
    grey = load_data(options.data, options.data_dir, pixels="grey")
    train, validation, _ = (part.as_pixels("dynamic") for part in grey)
    labels, truth = grey.train.labels, grey.test.labels
    if labels is None or truth is None:
        raise ValueError(f"expected images with labels, got {options.data} without")
    m1 = train_m1(options, train, validation, folder / "m1")
    if not options.stacked:
        return Task(train, labels, grey.test.all(), truth), m1, train.shape
    return Task(latents(m1, train), labels, latents(m1, grey.test).loc, truth), m1, train.shape


def main(args: Sequence[str] | None = None) -> None:
    """Train M2 for each draw of the labels; compute the accuracy on the test images."""
    with program(Options, args, __doc__) as (options, folder):
        task, m1, shape = task_of(options, folder.path)
        scores = []
        for draw in options.draws:
            m2, by_epoch = train_draw(options, task, m1, draw, folder.path / f"labels-{draw}")
            scores.append(by_epoch)
        last = torch.tensor([each[-1] for each in scores])
        mean, spread = float(last.mean()), float(last.std()) if len(last) > 1 else 0.0
        print(f"accuracy {mean:.2%} +- {spread:.2%}; published {PUBLISHED[options.stacked]}")
        folder.write({"accuracy": mean, "standard_deviation": spread, "by_epoch": scores})
        x = m2.by_class(8)
        pictures = m1.decoder(x).mean.detach() if options.stacked else x
        title = "E[x | y, z], one z in each row"
        folder.draw("by_class", images(pictures, shape, columns=len(x) // 8, title=title))


if __name__ == "__main__":
    main()
