"""A training run: begun in a folder, trained, judged, and come back to."""

from collections.abc import Iterator
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from torch.optim.lr_scheduler import LRScheduler

from ..data.splits import Splits
from ..inference.distributed import agreed, barrier, rank
from ..inference.svi import SVI
from ..models.vae import VAE
from ..plots.mosaic import Shape
from ..training.checkpoint import BEST, LAST, load_weights
from ..training.loop import iter_epochs
from ..training.metrics import Record
from ..training.saving import FOLDER, load, save
from .build import build_svi, build_vae, choose_device, load_splits
from .choices import fitting_likelihoods, peak
from .config import Config, check_values
from .progress import part
from .results import draw_figures, judge
from .storage import (
    ABOUT,
    CONFIG,
    RESULT,
    check_resumable,
    check_unedited,
    history,
    load_config,
    load_json,
    save_config,
    save_json,
    sessions,
    with_absolute_paths,
)
from .tensorboard import Board


@dataclass(frozen=True)
class Run:
    """A run that is ready to train, or to go on."""

    config: Config
    folder: Path
    vae: VAE
    splits: Splits
    svi: SVI
    scheduler: LRScheduler
    board: Board | None = None

    @property
    def epochs_done(self) -> int:
        """How many epochs the folder holds."""
        return _epochs_done(self.folder)

    @property
    def show(self) -> bool:
        """Whether this process says how far it is."""
        return self.config.progress and rank() == 0

    def fit(self) -> Iterator[Record]:
        """Train; yield the records of the epochs that were not done yet.

        The errors are those of :func:`pyro_vae.training.loop.fit`; where a loss is not finite, the
        ``FloatingPointError`` says which option to try.
        """
        name = f"training for {self.config.epochs} epochs"
        with closing(self.board) if self.board else nullcontext(), part(name, self.show) as show:
            try:
                for record in self._records(show):
                    if self.board is not None:
                        self.board.write(record)
                    yield record
            except FloatingPointError as error:
                raise self._advice(str(error)) from error
            except ValueError as error:  # the distributions' own words for weights that diverged
                if "found invalid values" not in str(error) or not self.svi.num_steps:
                    raise
                what = f"expected finite parameters after {self.svi.num_steps} steps, got others"
                raise self._advice(what) from error

    def _advice(self, what: str) -> FloatingPointError:
        rate = f"{self.config.lr:g}"
        return FloatingPointError(f"{what}. Try a smaller --lr (now {rate}) or --clip-norm")

    def _records(self, progress: bool) -> Iterator[Record]:
        c = self.config
        (train, validation, _) = self.splits
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
            progress=progress,
        )


def open_run(config: Config) -> Run:
    """Begin a run in a new folder, or go on with the one that ``config.resume`` names.

    Raises ``ValueError`` for options that mean nothing or do not fit together, a folder that holds
    a run already, and a resumed run of other options; ``FileNotFoundError`` for a missing data set
    or run. Then no folder is made, and that of a resumed run is as it was.
    """
    check_values(config)
    config = with_absolute_paths(config)
    folder = agreed(_folder(config))
    _check_folder(config, folder)
    device = choose_device(config.device)
    splits = Splits(*(images.to(device) for images in load_splits(config)))
    if config.patience is not None and not len(splits.validation):
        raise ValueError(f"expected a validation set for patience {config.patience}, got none")
    vae = build_vae(config, splits.train).to(device)
    svi, scheduler = build_svi(config, vae, len(splits.train))
    board = Board(folder) if config.tensorboard and rank() == 0 else None
    barrier()  # nobody looks at the folder once somebody writes there
    run = Run(config, folder, vae, splits, svi, scheduler, board)
    if rank() == 0:
        folder.mkdir(parents=True, exist_ok=True)
        _describe(run, device)
    return run


def load_sampler(
    folder: Path, *, data_dir: Path | None = None, device: str = "cpu"
) -> tuple[VAE, Shape, float]:
    """Load the model of a run, the shape of its images, and the largest value of a pixel.

    The data are needed only where the run is not finished, or older than this description.
    Raises as :func:`load_run`.
    """
    images = load_json(folder / ABOUT).get("images") if (folder / ABOUT).is_file() else None
    if images is None or not (folder / FOLDER).is_dir():
        _, vae, splits = load_run(folder, data_dir=data_dir, device=device)
        return vae, splits.train.shape, peak(splits.train)
    channels, height, width = images["shape"]
    return load(folder).to(choose_device(device)), (channels, height, width), images["peak"]


def chosen(run: Run) -> dict[str, Any]:
    """What was chosen where the options leave it open, and how many images there are."""
    train, validation, test = run.splits
    c = run.config
    found = {
        "pixels": None if c.pixels else str(train.pixels),
        "likelihood": None if c.likelihood else fitting_likelihoods(train)[0],
        "device": None if c.device != "auto" else str(train.values.device),
    }
    sizes = {"train": len(train), "validation": len(validation), "test": len(test)}
    return {**{name: value for name, value in found.items() if value is not None}, "images": sizes}


def report(run: Run) -> dict[str, Any]:
    """Judge the best weights of a run on its test set; write the result, draw the figures."""
    load_weights(run.folder / BEST, run.vae.model, run.vae.guide)
    save(run.vae, run.folder / FOLDER, overwrite=True)
    test = run.splits.test
    config = run.config
    name = f"evaluating {len(test)} test images, {config.num_samples} samples each"
    with part(name, run.show) as show:
        result = judge(config, run.vae, test, config.num_samples, progress=show)
    save_json(result, run.folder / RESULT)
    with part("drawing figures", run.show):
        draw_figures(run.folder, run.vae, test, config.seed)
    return result


def load_run(
    folder: Path | str, *, data_dir: Path | None = None, device: str = "cpu"
) -> tuple[Config, VAE, Splits]:
    """Load a run: its configuration, its best weights (by validation ELBO), and its data.

    The modules are in ``eval`` mode. ``data_dir`` is where torchvision's data sets have moved.

    Raises ``FileNotFoundError`` where the folder holds no run or the data are missing,
    ``ValueError`` where a file is damaged.
    """
    folder = Path(folder)
    config = load_config(folder / CONFIG)
    config = config if data_dir is None else replace(config, data_dir=data_dir)
    where = choose_device(device)
    if not (folder / BEST).is_file():
        raise FileNotFoundError(
            f"expected a run with a finished epoch, which has a {BEST}, got {folder}"
        )
    splits = load_splits(config)
    vae = build_vae(config, splits.train)
    load_weights(folder / BEST, vae.model, vae.guide)
    return config, vae.to(where).eval(), Splits(*(images.to(where) for images in splits))


def _folder(config: Config) -> Path:
    given = config.resume or config.output_dir
    if given is not None:
        return Path(given)
    name = f"{Path(config.dataset).stem}-{datetime.now():%Y%m%d-%H%M%S}"
    folders = (Path("runs") / f"{name}{end}" for end in ("", *(f"-{i}" for i in range(2, 100))))
    return next(folder for folder in folders if not folder.exists())


def _check_folder(config: Config, folder: Path) -> None:
    """Raise ``ValueError`` unless the folder is free for a new run, or holds the one to resume."""
    if config.resume is None:
        if (folder / CONFIG).exists():
            raise ValueError(
                f"expected a folder without a run, got {folder}: "
                f"continue it with --resume {folder}, or choose another"
            )
        return
    if config.output_dir is not None and config.output_dir.resolve() != folder.resolve():
        raise ValueError(
            "expected --resume without --output-dir, for a resumed run stays in its folder, "
            f"got --resume {folder} --output-dir {config.output_dir}"
        )
    begun = load_config(folder / CONFIG)
    check_unedited(begun, folder)
    check_resumable(config, with_absolute_paths(begun))
    done = _epochs_done(folder)
    if config.epochs < done:
        raise ValueError(
            f"expected epochs of at least {done}, which {folder} has done, got {config.epochs}"
        )


def _epochs_done(folder: Path) -> int:
    return len(history(folder)) if (folder / LAST).is_file() else 0


def _describe(run: Run, device: torch.device) -> None:
    """Write the configuration, and what was chosen, by which command, on which machine."""
    config = replace(run.config, output_dir=run.folder.resolve(), resume=None)
    about = {
        "chosen": chosen(run),
        "images": {"shape": run.splits.train.shape, "peak": peak(run.splits.train)},
        "sessions": sessions(run.folder, device),
        "options": asdict(config),
    }
    save_config(config, run.folder / CONFIG)
    save_json(about, run.folder / ABOUT)
