"""Training: the loop over epochs, metrics, checkpoints.

May import: evaluation, inference, objectives, programs.
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
    Data,
    NonFinite,
    device_of,
    epoch_batches,
    seeded,
    steps,
    take,
    train_epoch,
    validate,
)
from .loop import fit, reproduce
from .metrics import Record, to_csv

__all__ = [
    "BEST",
    "LAST",
    "PREVIOUS",
    "Data",
    "NonFinite",
    "Record",
    "State",
    "check_equal",
    "check_keys",
    "device_of",
    "epoch_batches",
    "fit",
    "latest",
    "load_checkpoint",
    "load_latest",
    "load_weights",
    "replacing",
    "reproduce",
    "restore_modules",
    "restore_svi",
    "save_checkpoint",
    "seeded",
    "steps",
    "svi_state",
    "take",
    "to_csv",
    "train_epoch",
    "validate",
]
