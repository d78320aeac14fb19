"""The metrics of a run for TensorBoard, an optional package."""

from dataclasses import asdict
from pathlib import Path

from ..training.metrics import Record


class Board:
    """Writes the metrics of every epoch into the folder ``tensorboard`` of a run.

    Raises ``ImportError`` where the package tensorboard is missing.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ImportError(
                "expected the package tensorboard for --tensorboard, got none: "
                'install it with pip install "pyro_vae[tensorboard]"'
            ) from error
        self.make = SummaryWriter
        self.folder = folder / "tensorboard"
        self.writer: SummaryWriter | None = None

    def write(self, record: Record) -> None:
        """Add the metrics of an epoch; those of later epochs, from a run cut short, are dropped."""
        if self.writer is None:  # not before the first epoch: a run may still be refused
            self.writer = self.make(str(self.folder), purge_step=record.epoch)
        for name, value in asdict(record).items():
            if name != "epoch" and value is not None:
                group = name.split("_")[0]
                tag = f"{group}/{name}" if group in ("train", "validation") else name
                self.writer.add_scalar(tag, value, record.epoch)
        self.writer.flush()

    def close(self) -> None:
        """Close the file, if one was opened."""
        if self.writer is not None:
            self.writer.close()
