"""Training: the loop over epochs, metrics, checkpoints.

May import: data, evaluation, families, inference, models, nets, objectives, programs.
"""

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
    load_weights,
    replacing,
    restore_modules,
    restore_svi,
    save_checkpoint,
    svi_state,
)
from .epoch import (
    NonFinite,
    device_of,
    epoch_batches,
    seeded,
    steps,
    take_all,
    train_epoch,
    validate,
)
from .failure import reproduce, save_failure
from .loop import fit, iter_epochs
from .metrics import Record, to_csv
from .run import TrainingRun
from .saving import load, save

__all__ = [
    "BEST",
    "LAST",
    "PREVIOUS",
    "NonFinite",
    "Record",
    "State",
    "TrainingRun",
    "check_equal",
    "check_keys",
    "device_of",
    "epoch_batches",
    "fit",
    "iter_epochs",
    "latest",
    "load",
    "load_checkpoint",
    "load_latest",
    "load_weights",
    "replacing",
    "reproduce",
    "restore_modules",
    "restore_svi",
    "save",
    "save_checkpoint",
    "save_failure",
    "seeded",
    "steps",
    "svi_state",
    "take_all",
    "to_csv",
    "train_epoch",
    "validate",
]
