"""A run's folder: its configuration, metrics, checkpoints, result and figures, and how to come back to it."""

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from torch.optim.lr_scheduler import LRScheduler

from ..data.images import Images
from ..data.splits import Splits
from ..evaluation.latents import latent_means
from ..evaluation.report import evaluate
from ..inference.distributed import agreed, barrier, rank
from ..inference.svi import SVI
from ..models.vae import VAE
from ..plots.panels import (
    curves,
    interpolations,
    latent_scatter,
    manifold,
    reconstructions,
    samples,
    save,
)
from ..training.checkpoint import BEST, LAST, load_checkpoint, load_weights, replacing
from ..training.epoch import seeded
from ..training.loop import iter_epochs
from ..training.metrics import Record
from .config import Config, build_svi, build_vae, choose_device, load_splits, peak

CONFIG, RESULT, FIGURES = "config.json", "result.json", "figures"


MAY_DIFFER = {
    "preset",
    "epochs",
    "device",
    "data_dir",
    "download",
    "num_samples",
    "progress",
    "output_dir",
    "resume",
}
"""The options in which a resumed run may differ from the one it continues."""


@dataclass(frozen=True)
class Run:
    """A run that is ready to train, or to go on."""

    config: Config
    folder: Path
    vae: VAE
    splits: Splits
    svi: SVI
    scheduler: LRScheduler

    def fit(self) -> Iterator[Record]:
        """Train; yield the records of the epochs that were not done yet: see :func:`pyro_vae.training.loop.fit`."""
        c, (train, validation, _) = self.config, self.splits
        return iter_epochs(
            self.svi,
            train,
            validation if len(validation) else None,
            epochs=c.epochs,
            batch_size=c.batch_size,
            seed=c.seed,
            scheduler=self.scheduler,
            patience=c.patience,
            folder=self.folder,
            resume=c.resume is not None,
            progress=c.progress and sys.stderr.isatty(),
        )


def open_run(config: Config) -> Run:
    """Begin a run in a new folder, or go on with the one that ``config.resume`` names.

    Raises ``ValueError`` for options that mean nothing or do not fit together, a folder that holds a run already, and a
    resumed run of other options; ``FileNotFoundError`` for a missing data set or run.
    """
    new = Path("runs") / f"{Path(config.dataset).stem}-{datetime.now():%Y%m%d-%H%M%S}"
    folder = agreed(config.resume or config.output_dir or new)
    if config.resume is not None:
        check_resumable(config, load_config(folder / CONFIG))
    elif (folder / CONFIG).exists():
        raise ValueError(
            f"expected a folder without a run, got {folder}: continue it with --resume {folder}, or choose another"
        )
    device = choose_device(config.device)
    splits = Splits(*(images.to(device) for images in load_splits(config)))
    vae = build_vae(config, splits.train).to(device)
    svi, scheduler = build_svi(config, vae, len(splits.train))
    barrier()  # nobody looks at the folder once somebody writes there
    if rank() == 0:
        folder.mkdir(parents=True, exist_ok=True)
        save_config(replace(config, output_dir=folder, resume=None), folder / CONFIG)
    return Run(config, folder, vae, splits, svi, scheduler)


def report(run: Run) -> dict[str, Any]:
    """Judge the best weights of a trained run on its test set and draw its figures; write the result and return it."""
    load_weights(run.folder / BEST, run.vae.model, run.vae.guide)
    result = judge(
        run.config,
        run.vae,
        run.splits.test,
        run.config.num_samples,
        progress=run.config.progress and sys.stderr.isatty(),
    )
    save_json(result, run.folder / RESULT)
    draw_figures(run.folder, run.vae, run.splits.test, run.config.seed)
    return result


def judge(
    config: Config, vae: VAE, images: Images, num_samples: int, *, progress: bool = False
) -> dict[str, Any]:
    """Evaluate a pair on images: what a number must never be without, then the figures of :func:`pyro_vae.evaluation.report.evaluate`."""
    x = images.all()
    with seeded(config.seed):
        result = evaluate(
            vae.model,
            vae.guide,
            x,
            num_samples=num_samples,
            compile=config.compile,
            kl_draws=0,
            progress=progress,
        )
    return {**about(config, images), **result.summary()}


def about(config: Config, images: Images) -> dict[str, Any]:
    """What a figure must never be without: the data set, its pixels, the seeds."""
    return {
        "dataset": config.dataset,
        "pixels": str(images.pixels),
        "data_seed": config.data_seed,
        "seed": config.seed,
    }


def sentence(result: dict[str, Any]) -> str:
    """A result of :func:`judge` in one sentence; the error is the standard error over images."""
    return (
        "test ELBO {elbo:.2f}, log p(x) {log_px:.2f} +- {log_px_data_error:.2f} nats per image "
        "({num_data} images, {num_samples} importance samples; {pixels} pixels, data seed {data_seed}; seed {seed})"
    ).format(**result)


def save_json(values: dict[str, Any], path: Path) -> None:
    """Write numbers and names as JSON."""
    with replacing(path) as file:
        file.write((json.dumps(values, indent=2) + "\n").encode())


def draw_figures(folder: Path, vae: VAE, images: Images, seed: int = 0) -> None:
    """Draw what a run came to into its folder ``figures``: curves, and on some images what the pair makes of them."""
    shape, top = images.shape, peak(images)
    few = images.batch(torch.linspace(0, len(images) - 1, min(40, len(images))).long())
    half = len(few) // 2
    with seeded(seed):
        means = latent_means(vae.guide, images.all())
        figures = {
            "curves": curves(history(folder)),
            "samples": samples(vae, shape, peak=top),
            "reconstructions": reconstructions(vae, few, shape, peak=top),
        }
        if half:
            figures["interpolations"] = interpolations(
                vae, few[:half][:8], few[half:][:8], shape, peak=top
            )
        if means.shape[1] > 1:
            figures["latents"] = latent_scatter(means, images.labels)
        if means.shape[1] == 2:
            figures["manifold"] = manifold(vae, shape, peak=top)
    for name, figure in figures.items():
        save(figure, folder / FIGURES / f"{name}.png")


def history(folder: Path) -> list[Record]:
    """The records of a run's epochs so far.

    Raises ``FileNotFoundError`` where the folder holds no run.
    """
    return [Record(**record) for record in load_checkpoint(folder / LAST)["history"]]


def save_config(config: Config, path: Path) -> None:
    """Write a configuration as JSON."""
    values = {
        name: str(value) if isinstance(value, Path) else value
        for name, value in asdict(config).items()
    }
    save_json(values, path)


def load_config(path: Path) -> Config:
    """Read what :func:`save_config` wrote; options that the file lacks have their defaults.

    Raises ``FileNotFoundError`` where there is no file, ``ValueError`` where it is no configuration or has unknown options.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"expected the folder of a run, which has a {CONFIG}, got {path.parent}"
        )
    try:
        values = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"expected JSON in {path}, got {error}") from error
    names = {field.name for field in fields(Config)}
    if not isinstance(values, dict) or not values.keys() <= names:
        unknown = (
            sorted(values.keys() - names) if isinstance(values, dict) else type(values).__name__
        )
        raise ValueError(f"expected the options of a run in {path}, got {unknown}")
    return Config(**{name: _decode(name, value) for name, value in values.items()})


def check_resumable(config: Config, begun: Config) -> None:
    """Raise ``ValueError`` where a configuration differs from that of the run it resumes, naming the options."""
    strict = {field.name for field in fields(Config)} - MAY_DIFFER
    if config.lr_schedule == "cosine":  # its whole course depends on where it ends
        strict.add("epochs")
    different = [
        name
        for name in asdict(begun)
        if name in strict and getattr(config, name) != getattr(begun, name)
    ]
    if different:
        was = ", ".join(f"{name} = {getattr(begun, name)!r}" for name in different)
        got = ", ".join(f"{name} = {getattr(config, name)!r}" for name in different)
        raise ValueError(f"expected the options of the run that is resumed, {was}, got {got}")


def load_run(
    folder: Path, *, data_dir: Path | None = None, device: str = "cpu"
) -> tuple[Config, VAE, Splits]:
    """Load a run: its configuration, its best weights (by validation ELBO), and its data, perhaps from another ``data_dir``.

    Raises ``FileNotFoundError`` where the folder holds no run or the data are missing, ``ValueError`` where a file is damaged.
    """
    config = load_config(folder / CONFIG)
    config = config if data_dir is None else replace(config, data_dir=data_dir)
    where = choose_device(device)
    splits = load_splits(config)
    vae = build_vae(config, splits.train)
    if not (folder / BEST).is_file():
        raise FileNotFoundError(
            f"expected a run with a finished epoch, which has a {BEST}, got {folder}"
        )
    load_weights(folder / BEST, vae.model, vae.guide)
    return config, vae.to(where), Splits(*(images.to(where) for images in splits))


def _decode(name: str, value: Any) -> Any:
    """A value of JSON as an option's own type."""
    if isinstance(value, list):
        return tuple(value)
    return (
        Path(value) if name in ("data_dir", "output_dir", "resume") and value is not None else value
    )
