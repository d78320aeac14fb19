"""Training: :func:`fit` for all epochs at once, :func:`iter_epochs` for one after the other.

An epoch is a function of the weights, the buffers, the states of optimiser and scheduler, the
number of steps, the seed and the number of the epoch, and of nothing else (see
:mod:`pyro_vae.training.epoch`). So a checkpoint holds no state of a random generator, and a run
that was killed continues as if it had not been interrupted.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch.optim.lr_scheduler import ReduceLROnPlateau

from ..data.adapters import Data, Loader, as_data
from ..inference.distributed import rank, world_size
from ..inference.svi import SVI
from ..programs.checks import at_least
from .metrics import Record
from .run import Scheduler, TrainingRun

BATCH_SIZE = 128


def fit(
    svi: SVI,
    data: Any,
    validation: Any = None,
    *,
    epochs: int,
    batch_size: int | None = None,
    seed: int = 0,
    scheduler: Scheduler | None = None,
    patience: int | None = None,
    folder: Path | str | None = None,
    resume: bool = False,
    progress: bool = True,
) -> list[Record]:
    """Train up to epoch ``epochs``, in shuffled batches; return the metrics of all epochs.

    ``data``, and ``validation`` if there is a validation set, are one of

    - a tensor or a NumPy array with one datum per row: x, the argument of model and guide;
    - a tuple of them, such as ``(x, mask)``, ``(x, labels)`` or ``(x, rows)``: the arguments;
    - a ``torch.utils.data.Dataset``, whose items are tensors, or tuples of the arguments;
    - a ``DataLoader`` of such a data set. It chooses batch size and order itself: such a run
      cannot be resumed, and its data are not shared among processes;
    - :class:`pyro_vae.data.images.Images`, or any object with ``len`` and ``batch(indices)``.

    ``batch_size`` is 128 by default. The ``scheduler`` of the learning rate is stepped once per
    epoch (``ReduceLROnPlateau`` with the negative validation ELBO). With ``patience``, training
    stops after so many epochs without a better validation ELBO. That ELBO comes from one draw per
    datum, with the same noise in every epoch.

    ``folder`` receives ``last.pt``, ``previous.pt`` (the one before), ``best.pt`` (of the best
    validation ELBO; of the last epoch without a validation set) and ``metrics.csv``. With
    ``resume`` a run that is found there continues; on the CPU it ends with the same weights, bit
    for bit, as a run that was never interrupted. A process may be killed at any moment: every
    file is complete.

    Random state, ``train`` and ``eval`` modes and global flags are afterwards as they were before.
    Among several processes each takes its share of the data, and the first one writes the files.

    Raises ``FloatingPointError`` where a loss, or a weight at the end of an epoch, is not finite:
    it names epoch, step and batch, and ``failure.pt`` in the folder holds what
    :func:`pyro_vae.training.failure.reproduce` needs. Raises ``TypeError`` or ``ValueError`` for
    data or options that cannot be used, a folder that holds a run (without ``resume``), a run with
    another configuration, or a corrupt checkpoint.

    >>> import torch
    >>> optimiser = torch.optim.Adam(vae.parameters(), lr=1e-3)
    >>> svi = SVI(vae.model, vae.guide, optimiser, loss=Trace_ELBO())
    >>> history = fit(svi, torch.ones(100, 64), epochs=3, batch_size=40, progress=False)
    >>> [record.step for record in history]
    [3, 6, 9]
    """
    run = _prepare(svi, data, validation, batch_size, seed, scheduler, patience, folder)
    for _ in run.records(_checked_epochs(epochs, run, resume), resume, progress and rank() == 0):
        pass
    return run.history


def iter_epochs(
    svi: SVI,
    data: Any,
    validation: Any = None,
    *,
    epochs: int,
    batch_size: int | None = None,
    seed: int = 0,
    scheduler: Scheduler | None = None,
    patience: int | None = None,
    folder: Path | str | None = None,
    resume: bool = False,
    progress: bool = True,
) -> Iterator[Record]:
    """Train as :func:`fit` does; yield the metrics of each epoch when it is done.

    Nothing is trained before the first is asked for. A resumed run yields the epochs that were not
    done yet.

    >>> import torch
    >>> svi = SVI(vae.model, vae.guide, torch.optim.Adam(vae.parameters()), loss=Trace_ELBO())
    >>> for record in iter_epochs(svi, torch.ones(100, 64), epochs=2, progress=False):
    ...     print(record.epoch)
    1
    2
    """
    run = _prepare(svi, data, validation, batch_size, seed, scheduler, patience, folder)
    return run.records(_checked_epochs(epochs, run, resume), resume, progress and rank() == 0)


def _prepare(
    svi: SVI,
    data: Any,
    validation: Any,
    batch_size: int | None,
    seed: int,
    scheduler: Scheduler | None,
    patience: int | None,
    folder: Path | str | None,
) -> TrainingRun:
    """A run before its first epoch, its options checked."""
    if not isinstance(svi, SVI):
        raise TypeError(f"expected an SVI of pyro_vae, got {type(svi).__name__}")
    train = as_data(data)
    held_out = None if validation is None else as_data(validation)
    size = _batch_size(train, batch_size)
    at_least(1, batch_size=size, patience=patience)
    at_least(0, seed=seed)
    for part in (train, held_out):
        _check_length(part)
    if held_out is None and isinstance(scheduler, ReduceLROnPlateau):
        raise ValueError("expected a validation set for ReduceLROnPlateau, got none")
    if held_out is None and patience is not None:
        raise ValueError(f"expected a validation set for patience {patience}, got none")
    path = None if folder is None else Path(folder)
    return TrainingRun(svi, train, held_out, size, seed, scheduler, patience, path)


def _checked_epochs(epochs: int, run: TrainingRun, resume: bool) -> int:
    at_least(0, epochs=epochs)
    if resume and run.folder is None:
        raise ValueError("expected a folder to resume from, got none")
    if resume and isinstance(run.train, Loader):
        raise ValueError(
            "expected tensors, arrays, a Dataset or Images to resume a run with, got a DataLoader: "
            "its order is not known"
        )
    return epochs


def _batch_size(train: Data | Loader, batch_size: int | None) -> int:
    if not isinstance(train, Loader):
        return BATCH_SIZE if batch_size is None else batch_size
    if batch_size is not None:
        raise ValueError(
            f"expected no batch_size with a DataLoader, which has its own, got {batch_size}"
        )
    return train.batch_size


def _check_length(data: Data | Loader | None) -> None:
    if data is None:
        return
    if len(data) < world_size():
        raise ValueError(f"expected at least {world_size()} data, got {len(data)}")
    if isinstance(data, Loader) and world_size() > 1:
        raise ValueError(
            "expected tensors, arrays, a Dataset or Images to share among "
            f"{world_size()} processes, got a DataLoader"
        )
