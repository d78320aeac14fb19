"""A training run as one value: every option of the scripts, in five groups.

:class:`Config` is the single source of the command line, of a run's ``config.json``, and of what a
resumed run must agree on. :mod:`pyro_vae.experiments.choices` gives its names their meaning.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from .choices import (
    ACTIVATIONS,
    ANNEALING,
    ENCODERS,
    GUIDES,
    LIKELIHOODS,
    LR_SCHEDULES,
    OBJECTIVES,
    OPTIMISERS,
    PRECISIONS,
    PRIORS,
)


def _names(table: Mapping[str, object]) -> Any:
    """What ``--help`` shows of an option whose values are the names of a table."""
    return tyro.conf.arg(metavar="{" + ",".join(table) + "}")


@dataclass(frozen=True)
class DataOptions:
    """Which images, and what is observed of them."""

    dataset: str = "digits"
    """digits, a data set of torchvision (mnist, ...), an .npy or .npz file, a folder of images."""
    data_dir: Path | None = None
    """The folder of torchvision's data sets; by default data."""
    download: bool = False
    """Fetch the data set into --data-dir if it is not there."""
    pixels: str | None = None
    """static, dynamic, threshold, grey, counts or 8bit; by default what is usual for the set."""
    validation_size: int | float | None = None
    """Images for validation, or their fraction (0.1); by default what is usual for the set."""
    max_images: int | None = None
    """Use only the first so many images of each part, for a trial."""
    data_seed: int = 0
    """Seeds the split and the static binarisation, so that all --seed share the test images."""


@dataclass(frozen=True)
class ModelOptions:
    """The model p(z) p(x | z) and the guide q(z | x)."""

    architecture: Annotated[str, _names(ENCODERS)] = "mlp"
    """The networks of encoder and decoder."""
    hidden: tuple[int, ...] = (400,)
    """Hidden units of the mlp, from the data to the latents."""
    activation: Annotated[str, _names(ACTIVATIONS)] = "relu"
    """The mlp's nonlinearity."""
    likelihood: Annotated[str | None, _names(LIKELIHOODS)] = None
    """The family of p(x | z); by default the natural one of the pixels."""
    scale: float = 0.1
    """The standard deviation of the normal likelihood, or where it starts."""
    learn_scale: bool = False
    """Learn the scale of the normal likelihood."""
    init_output_bias: bool = False
    """Start the decoder's output from the mean image (mlp only)."""
    latent_dim: int = 20
    """The dimension of z."""
    guide: Annotated[str, _names(GUIDES)] = "diagonal"
    """The family of q(z | x)."""
    prior: Annotated[str, _names(PRIORS)] = "standard"
    """The family of p(z)."""


@dataclass(frozen=True)
class ObjectiveOptions:
    """What is optimised."""

    objective: Annotated[str, _names(OBJECTIVES)] = "elbo"
    """elbo draws every term; analytic has the KL in closed form; others: pyro_vae.objectives."""
    num_particles: int = 1
    """Draws of z for each image and step."""
    beta: float = 1.0
    """The weight of the KL."""
    free_bits: float = 0.1
    """The floor under the KL of each latent dimension and image, in nats (objective free_bits)."""
    mmd_weight: float = 10.0
    """The weight lambda of the divergence of the aggregate (objective infovae)."""
    annealing: Annotated[str, _names(ANNEALING)] = "none"
    """How the weight of the KL grows to beta."""
    annealing_epochs: int = 10
    """The length of the growth (linear) or of one period (cyclical)."""


@dataclass(frozen=True)
class TrainingOptions:
    """How it is optimised."""

    optimiser: Annotated[str, _names(OPTIMISERS)] = "adam"
    """The optimiser."""
    lr: float = 1e-3
    """The learning rate."""
    lr_schedule: Annotated[str, _names(LR_SCHEDULES)] = "constant"
    """How the learning rate changes from epoch to epoch."""
    adam_betas: tuple[float, float] = (0.9, 0.999)
    """Adam's decay rates."""
    adam_eps: float = 1e-8
    """Adam's epsilon."""
    clip_norm: float | None = None
    """Scale the gradient down to this norm."""
    epochs: int = 200
    """How many times the training set is seen."""
    batch_size: int = 128
    """Images in a step."""
    patience: int | None = None
    """Stop after so many epochs without a better validation ELBO."""
    seed: int = 0
    """Seeds the weights, the order of the data and all draws."""
    compile: bool = False
    """Compile the whole step into one graph."""
    precision: Annotated[str, _names(PRECISIONS)] = "float32"
    """What the networks compute in; densities are float32 always."""


@dataclass(frozen=True)
class RunOptions:
    """Where it runs, and what it leaves behind."""

    preset: str | None = None
    """r1 to r5: start from a system of the literature; other options override its settings."""
    device: str = "auto"
    """cpu, cuda, mps, or auto: the fastest that is there."""
    num_samples: int = 1000
    """Importance samples for log p(x) of each test image, at the end."""
    progress: bool = True
    """Show how far each part is: a bar in a terminal, elsewhere a line a minute."""
    tensorboard: bool = False
    """Also write the metrics of every epoch for TensorBoard (needs the extra tensorboard)."""
    output_dir: Path | None = None
    """The run's folder; by default a new one below runs/."""
    resume: Path | None = None
    """Continue the run in this folder, with the options it was begun with unless they are given."""


GROUPS: tuple[type[Any], ...] = (
    DataOptions,
    ModelOptions,
    ObjectiveOptions,
    TrainingOptions,
    RunOptions,
)


@dataclass(frozen=True)
class Config(RunOptions, TrainingOptions, ObjectiveOptions, ModelOptions, DataOptions):
    """Everything a training run depends on; the defaults are preset r1 on the embedded digits.

    >>> Config(latent_dim=2).hidden
    (400,)
    """


LEAST = {
    "validation_size": 0,
    "max_images": 1,
    "data_seed": 0,
    "latent_dim": 1,
    "hidden": 1,
    "num_particles": 1,
    "beta": 0,
    "free_bits": 0,
    "mmd_weight": 0,
    "annealing_epochs": 1,
    "epochs": 1,
    "batch_size": 1,
    "patience": 1,
    "seed": 0,
    "num_samples": 1,
}
"""The least values of counts and weights; of a tuple, of each of its values."""

POSITIVE = ("scale", "lr", "adam_eps", "clip_norm")
"""Options that must be greater than 0, and finite."""


def check_values(config: Config) -> None:
    """Raise ``ValueError`` for numbers that mean nothing, such as a batch of no images.

    >>> check_values(Config(epochs=0))
    Traceback (most recent call last):
    ValueError: expected epochs of at least 1, got 0
    """
    for name, least in LEAST.items():
        if any(not value >= least for value in _values(config, name)):
            raise ValueError(f"expected {name} of at least {least}, got {_shown(config, name)}")
    for name in POSITIVE:
        if any(not 0 < value < float("inf") for value in _values(config, name)):
            raise ValueError(f"expected a finite {name} greater than 0, got {_shown(config, name)}")
    if any(not 0 <= value < 1 for value in config.adam_betas):
        raise ValueError(f"expected adam_betas in [0, 1), got {config.adam_betas}")


def _values(config: Config, name: str) -> Iterable[float]:
    """The numbers of an option; none where it is not set."""
    value = getattr(config, name)
    if value is None:
        return ()
    return value if isinstance(value, tuple) else (value,)


def _shown(config: Config, name: str) -> str:
    value = getattr(config, name)
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
