"""What is saved of a training step that failed, and its repetition."""

from itertools import islice
from pathlib import Path
from typing import Any

from torch import Tensor

from ..data.adapters import Loader, as_data
from ..inference.distributed import rank, world_size
from ..inference.svi import SVI
from ..programs.isolation import in_mode
from .checkpoint import (
    LAST,
    State,
    check_equal,
    check_keys,
    load_checkpoint,
    restore_svi,
    save_checkpoint,
)
from .epoch import NonFinite, epoch_batches, seeded, steps

FAILURE = "failure.pt"


def save_failure(
    folder: Path, failure: NonFinite, indices: Tensor, epoch: int, step: int, settings: State
) -> Path:
    """Save the failing batch, where it was in the epoch, and the last good checkpoint."""
    path = folder / (FAILURE if rank() == 0 else f"rank{rank()}-{FAILURE}")
    state = {
        "epoch": epoch,
        "step": step,
        "batch_number": failure.number + 1,
        "indices": indices,
        "batch": failure.batch,
        "rank": rank(),
        "world_size": world_size(),
        "settings": settings,
        "state": load_checkpoint(folder / LAST),
    }
    save_checkpoint(path, state)
    return path


def reproduce(svi: SVI, data: Any, path: Path) -> Tensor:
    """Repeat the step that ``failure.pt`` is about; return its loss.

    ``svi`` is built, and ``data`` given, as for the run that failed. The file holds ``epoch``,
    ``step``, ``seed``, the failing batch (``indices`` and ``batch``) and ``state``, the last good
    checkpoint. From there the epoch is run again up to the failing step, which is included. Its
    weights, gradients and ``svi.estimate`` can then be inspected.

    Raises ``ValueError`` for a file of another run, or a ``DataLoader``, whose order is not known.
    """
    train = as_data(data)
    if isinstance(train, Loader):
        raise ValueError("expected data by index to reproduce a step, got a DataLoader")
    failure = load_checkpoint(path)
    check_keys(failure, {"epoch", "batch_number", "rank", "world_size", "settings", "state"}, path)
    epoch = failure["epoch"]
    settings = failure["settings"]
    shard = failure["rank"], failure["world_size"]
    check_equal("training set length", settings["training set length"], len(train), path)
    restore_svi(svi, failure["state"], path)
    batches = epoch_batches(len(train), settings["batch size"], settings["seed"], epoch, *shard)
    with seeded(settings["seed"], epoch, 1 + shard[0]), in_mode(svi.pair.modules, True):
        for _ in islice(steps(svi, train, batches), failure["batch_number"]):
            pass
    loss: Tensor = svi.estimate.loss  # type: ignore[union-attr]
    return loss
