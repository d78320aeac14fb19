"""The training loop: a generator of one record per epoch.

An epoch is a function of the weights, the buffers, the states of optimiser and scheduler, the step count, the seed and the
epoch's number, and of nothing else (see :mod:`pyro_vae.training.epoch`). So a checkpoint needs no generator's state, and a run that
was killed goes on as if it had not been.
"""

import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import cast

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from tqdm import tqdm

from ..inference.distributed import barrier, rank, world_size
from ..inference.svi import SVI, objective_at
from ..objectives.objective import Estimate
from ..programs.isolation import in_mode
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
from .epoch import Data, NonFinite, epoch_batches, seeded, steps, train_epoch, validate
from .metrics import Record, to_csv

METRICS, FAILURE = "metrics.csv", "failure.pt"


Scheduler = LRScheduler | ReduceLROnPlateau


def fit(
    svi: SVI,
    train: Data,
    validation: Data | None = None,
    *,
    epochs: int,
    batch_size: int = 128,
    seed: int = 0,
    scheduler: Scheduler | None = None,
    patience: int | None = None,
    folder: Path | None = None,
    resume: bool = False,
    progress: bool = True,
) -> Iterator[Record]:
    """Train up to epoch ``epochs``, in shuffled batches; yield a record after each epoch.

    The ``scheduler`` of the learning rate is stepped once per epoch (``ReduceLROnPlateau`` with the negative validation
    ELBO). With ``patience``, training stops after so many epochs without a better validation ELBO. The ELBO of the
    validation set comes from one draw per datum, the same noise at every epoch.

    ``folder`` receives ``last.pt``, ``previous.pt`` (the one before), ``best.pt`` (of the best validation ELBO, or the last
    where there is no validation set) and ``metrics.csv``. With ``resume`` a run found there goes on; on the CPU it ends with
    the same weights, bit for bit, as one that was never interrupted. Files are whole whenever the process is killed.

    The caller's random state, the modules' ``train`` or ``eval`` modes and all global flags are as found between epochs.
    Among several processes each takes its share of every epoch's data, and the first one writes.

    Raises ``FloatingPointError`` where a loss, or a weight at the end of an epoch, is not finite: it names epoch, step and
    batch, and ``failure.pt`` holds what :func:`reproduce` needs. Raises ``ValueError`` for arguments that mean nothing, a
    folder that holds a run unless ``resume``, a run of another configuration, or a corrupt checkpoint.

    >>> from pyro_vae import SVI, VAE, Bernoulli, DiagonalNormal, StandardNormal, Trace_ELBO, mlp
    >>> class Ones:
    ...     def __len__(self): return 100
    ...     def batch(self, indices): return torch.ones(len(indices), 64)
    >>> vae = VAE(StandardNormal(2), Bernoulli(mlp(2, 16, 64)), DiagonalNormal(mlp(64, 16, 4)))
    >>> svi = SVI(vae.model, vae.guide, torch.optim.Adam(vae.parameters(), lr=1e-3), loss=Trace_ELBO())
    >>> [record.step for record in fit(svi, Ones(), epochs=3, batch_size=40, progress=False)]
    [3, 6, 9]
    """
    _check_arguments(epochs, batch_size, seed, patience, train, validation)
    if isinstance(scheduler, ReduceLROnPlateau) and validation is None:
        raise ValueError("expected a validation set for ReduceLROnPlateau, got none")
    if patience is not None and validation is None:
        raise ValueError(f"expected a validation set for patience {patience}, got none")
    if resume and folder is None:
        raise ValueError("expected a folder to resume from, got none")
    run = _Run(
        svi, train, validation, batch_size, seed, scheduler, patience, folder and Path(folder)
    )
    return run.records(epochs, resume, progress and rank() == 0)


def reproduce(svi: SVI, train: Data, path: Path) -> Tensor:
    """Repeat the step that ``failure.pt`` tells of; return its loss. ``svi`` is built as for the run that failed.

    The file holds ``epoch``, ``step``, ``seed``, the failing batch (``indices`` and ``batch``) and ``state``, the last good
    checkpoint. From there the epoch is run again up to and with the failing step; its weights, gradients and
    ``svi.estimate`` can then be looked at. To stop before it, load ``state`` and step through the epoch by hand.
    """
    failure = load_checkpoint(path)
    check_keys(failure, {"epoch", "batch_number", "rank", "world_size", "settings", "state"}, path)
    epoch, shard, settings = (
        failure["epoch"],
        (failure["rank"], failure["world_size"]),
        failure["settings"],
    )
    check_equal("training set length", settings["training set length"], len(train), path)
    restore_svi(svi, failure["state"], path)
    batches = epoch_batches(len(train), settings["batch size"], settings["seed"], epoch, *shard)
    with seeded(settings["seed"], epoch, 1 + shard[0]), in_mode(svi.pair.modules, True):
        for _ in steps(svi, train, batches[: failure["batch_number"]]):
            pass
    return cast(Estimate, svi.estimate).loss


@dataclass
class _Run:
    """A run: what it was given, and the records so far, from which all else follows."""

    svi: SVI
    train: Data
    validation: Data | None
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
        with tqdm(
            total=epochs * length,
            initial=len(self.history) * length,
            unit="step",
            disable=not progress,
        ) as bar:
            while len(self.history) < epochs and not self._exhausted():
                record = self._epoch(len(self.history) + 1, bar)
                self.history.append(record)
                self._step_scheduler(record)
                self._save()
                bar.set_postfix(
                    epoch=record.epoch, train=record.train_elbo, validation=record.validation_elbo
                )
                yield record

    def _epoch(self, epoch: int, bar: tqdm) -> Record:
        start, first_step = time.perf_counter(), self.svi.num_steps
        learning_rate = float(self.svi.optim.param_groups[0]["lr"])
        batches = self._batches(epoch)
        try:
            sums = train_epoch(self.svi, self.train, batches, self.seed, epoch, bar.update)
        except NonFinite as failure:
            raise self._failed(failure, epoch, first_step, batches) from None
        loss, log_likelihood, kl = _per_datum(sums, sum(map(len, batches)) * world_size())
        seconds = time.perf_counter() - start
        validated = self._validate()
        beta = getattr(objective_at(self.svi.objective, self.svi.num_steps - 1), "beta", None)
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
            self.scheduler.step(-cast(float, record.validation_elbo))
        elif self.scheduler is not None:
            self.scheduler.step()

    def _batches(self, epoch: int) -> list[Tensor]:
        return epoch_batches(
            len(self.train), self.batch_size, self.seed, epoch, rank(), world_size()
        )

    def _best_epoch(self) -> int:
        """The first epoch of the best validation ELBO; 0 where there is none."""
        elbos = [
            (r.validation_elbo, -r.epoch)
            for r in self.history
            if r.validation_elbo is not None and not math.isnan(r.validation_elbo)
        ]
        return -max(elbos)[1] if elbos else 0

    def _exhausted(self) -> bool:
        return self.patience is not None and len(self.history) - self._best_epoch() >= self.patience

    def _open(self, resume: bool) -> None:
        """Begin the folder's run, or go on with it."""
        if self.folder is None:
            return
        found = latest(self.folder)
        if found is not None and not resume:
            raise ValueError(
                f"expected a folder without a run, got {self.folder}: resume it, or choose another"
            )
        if found is not None:
            self._restore(load_latest(found), found)
        barrier()  # nobody looks at the folder once somebody writes there
        if found is None and rank() == 0:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._save()
            load_checkpoint(
                self.folder / LAST
            )  # what cannot be loaded again should fail now, not when it is needed

    def _save(self) -> None:
        """Write the metrics, the best checkpoint if this is it, then the last: a process killed in between repeats the epoch."""
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
        """What an interrupted run must be resumed with."""
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
        """Save what :func:`reproduce` needs; return the error to raise."""
        step = first_step + failure.number + 1
        message = f"expected finite losses, got {failure} in epoch {epoch}, step {step} (batch {failure.number + 1} of {len(batches)})"
        if self.folder is None:
            return FloatingPointError(message)
        path = self.folder / (FAILURE if rank() == 0 else f"rank{rank()}-{FAILURE}")
        found = {
            "epoch": epoch,
            "step": step,
            "batch_number": failure.number + 1,
            "indices": batches[failure.number],
            "batch": failure.batch,
        }
        processes = {"rank": rank(), "world_size": world_size()}
        save_checkpoint(
            path,
            {
                **found,
                **processes,
                "settings": self._settings(),
                "state": load_checkpoint(self.folder / LAST),
            },
        )
        return FloatingPointError(
            f"{message}: reproduce(svi, train, {path}), from pyro_vae.fit, repeats it"
        )


def _per_datum(sums: Estimate, count: int) -> list[float]:
    return cast(list[float], (torch.stack(cast(list[Tensor], list(sums))) / count).tolist())


def _check_arguments(
    epochs: int, batch_size: int, seed: int, patience: int | None, *sets: Data | None
) -> None:
    for name, value, least in [
        ("epochs", epochs, 0),
        ("batch_size", batch_size, 1),
        ("seed", seed, 0),
        ("patience", patience, 1),
    ]:
        if value is not None and value < least:
            raise ValueError(f"expected {name} of at least {least}, got {value}")
    for data in sets:
        if data is not None and len(data) < world_size():
            raise ValueError(f"expected at least {world_size()} data, got {len(data)}")
