"""A training run: its epochs, and the files in its folder."""

import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from tqdm import tqdm

from ..data.adapters import Data, Loader
from ..inference.distributed import barrier, rank, world_size
from ..inference.svi import SVI
from ..objectives.objective import Estimate
from .checkpoint import (
    BEST,
    LAST,
    PREVIOUS,
    State,
    check_equal,
    check_keys,
    latest,
    load_checkpoint,
    load_latest,
    replacing,
    restore_svi,
    save_checkpoint,
    svi_state,
)
from .epoch import NonFinite, epoch_batches, train_epoch, validate
from .failure import save_failure
from .metrics import Record, to_csv

METRICS = "metrics.csv"

Scheduler = LRScheduler | ReduceLROnPlateau


@dataclass
class TrainingRun:
    """A run: what it was given, and the records so far, which determine everything else."""

    svi: SVI
    train: Data | Loader
    validation: Data | Loader | None
    batch_size: int
    seed: int
    scheduler: Scheduler | None
    patience: int | None
    folder: Path | None
    history: list[Record] = field(default_factory=list)

    def records(self, epochs: int, resume: bool, progress: bool) -> Iterator[Record]:
        """Train; yield the records of the epochs that were not done yet."""
        self._open(resume)
        length = len(self._batches(1))
        done = len(self.history) * length
        with tqdm(total=epochs * length, initial=done, unit="step", disable=not progress) as bar:
            while len(self.history) < epochs and not self._exhausted():
                record = self._epoch(len(self.history) + 1, bar)
                self.history.append(record)
                self._step_scheduler(record)
                self._save()
                bar.set_postfix(_shown(record))
                yield record

    def _epoch(self, epoch: int, bar: tqdm) -> Record:
        start = time.perf_counter()
        first_step = self.svi.num_steps
        learning_rate = float(self.svi.optim.param_groups[0]["lr"])
        batches = self._batches(epoch)
        try:
            sums = train_epoch(self.svi, self.train, batches, self.seed, epoch, bar.update)
        except NonFinite as failure:
            raise self._failed(failure, epoch, first_step, batches) from None
        loss, log_likelihood, kl = _per_datum(sums, sum(map(len, batches)) * world_size())
        seconds = time.perf_counter() - start
        validated = self._validate()
        beta = getattr(self.svi.objective.at(self.svi.num_steps - 1), "beta", None)
        return Record(
            *(epoch, self.svi.num_steps, loss, log_likelihood - kl, log_likelihood, kl, *validated),
            beta=None if beta is None else float(beta),
            learning_rate=learning_rate,
            seconds=seconds,
        )

    def _validate(self) -> tuple[float | None, float | None, float | None, int | None]:
        """ELBO, log-likelihood, KL and active units of the validation set."""
        if self.validation is None:
            return None, None, None, None
        sums, active = validate(self.svi, self.validation, self.seed)
        _, log_likelihood, kl = _per_datum(sums, len(self.validation))
        return log_likelihood - kl, log_likelihood, kl, active

    def _step_scheduler(self, record: Record) -> None:
        if isinstance(self.scheduler, ReduceLROnPlateau):
            elbo = record.validation_elbo
            self.scheduler.step(math.nan if elbo is None else -elbo)
        elif self.scheduler is not None:
            self.scheduler.step()

    def _batches(self, epoch: int) -> list[Tensor]:
        """The indices of the batches; of a loader, only their sizes count."""
        if isinstance(self.train, Loader):
            return list(torch.arange(len(self.train)).split(self.batch_size))
        return epoch_batches(
            len(self.train), self.batch_size, self.seed, epoch, rank(), world_size()
        )

    def _best_epoch(self) -> int:
        """The first epoch with the best validation ELBO; 0 where there is none."""
        elbos = [
            (r.validation_elbo, -r.epoch)
            for r in self.history
            if r.validation_elbo is not None and not math.isnan(r.validation_elbo)
        ]
        return -max(elbos)[1] if elbos else 0

    def _exhausted(self) -> bool:
        return self.patience is not None and len(self.history) - self._best_epoch() >= self.patience

    def _open(self, resume: bool) -> None:
        """Start a run in the folder, or continue the one that is there."""
        if self.folder is None:
            return
        found = latest(self.folder)
        if found is not None and not resume:
            raise ValueError(
                f"expected a folder without a run, got {self.folder}: resume it, or choose another"
            )
        if found is not None:
            self._restore(load_latest(found), found)
        barrier()  # every process has looked at the folder before one of them writes there
        if found is None and rank() == 0:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._save()
            load_checkpoint(self.folder / LAST)  # fails now, not later, if it cannot be loaded

    def _save(self) -> None:
        """Write the metrics, the checkpoint of the best epoch if this is it, then the last one.

        After a kill between these writes the epoch is repeated.
        """
        if self.folder is None or rank() > 0:
            return
        state = self._state()
        with replacing(self.folder / METRICS) as file:
            file.write(to_csv(self.history).encode())
        if self.history and (self.validation is None or self._best_epoch() == len(self.history)):
            save_checkpoint(self.folder / BEST, state)
        save_checkpoint(self.folder / LAST, state, previous=self.folder / PREVIOUS)

    def _state(self) -> State:
        return {
            **svi_state(self.svi),
            "scheduler": self.scheduler and self.scheduler.state_dict(),
            "settings": self._settings(),
            "epoch": len(self.history),
            "history": [asdict(record) for record in self.history],
        }

    def _restore(self, state: State, path: Path) -> None:
        check_keys(state, {"scheduler", "settings", "history"}, path)
        for name, setting in self._settings().items():
            check_equal(name, state["settings"].get(name), setting, path)
        restore_svi(self.svi, state, path)
        if self.scheduler is not None:
            self.scheduler.load_state_dict(state["scheduler"])
        self.history = [Record(**record) for record in state["history"]]

    def _settings(self) -> State:
        """The settings that a resumed run must have, too."""
        return {
            "seed": self.seed,
            "batch size": self.batch_size,
            "training set length": len(self.train),
            "validation set length": None if self.validation is None else len(self.validation),
            "scheduler": None if self.scheduler is None else type(self.scheduler).__name__,
        }

    def _failed(
        self, failure: NonFinite, epoch: int, first_step: int, batches: list[Tensor]
    ) -> FloatingPointError:
        """Save what is needed to repeat the failing step; return the error to raise."""
        step = first_step + failure.number + 1
        message = (
            f"expected finite losses, got {failure} in epoch {epoch}, step {step} "
            f"(batch {failure.number + 1} of {len(batches)})"
        )
        if self.folder is None:
            return FloatingPointError(message)
        indices = batches[failure.number]
        path = save_failure(self.folder, failure, indices, epoch, step, self._settings())
        if isinstance(self.train, Loader):
            return FloatingPointError(f"{message}: {path} holds the batch")
        return FloatingPointError(
            f"{message}: pyro_vae.training.reproduce(svi, train, {path}) repeats it"
        )


def _shown(record: Record) -> dict[str, str]:
    """What the progress bar says of an epoch: its number, and the ELBO of each set there is."""
    elbos = {"train": record.train_elbo, "validation": record.validation_elbo}
    shown = {name: f"{elbo:.2f}" for name, elbo in elbos.items() if elbo is not None}
    return {"epoch": str(record.epoch), **shown}


def _per_datum(sums: Estimate, count: int) -> list[float]:
    means: list[float] = (
        torch.stack([value for value in sums if value is not None]) / count
    ).tolist()
    return means
