"""Train a variational autoencoder: by default on the embedded digits, in less than a minute on two cores.

Ends with the test set's ELBO and importance-weighted log p(x), in nats per image, and leaves a folder with the configuration,
the metrics of every epoch, checkpoints, the result and figures. --resume RUN goes on with such a folder. Under
torchrun --nproc-per-node N each process takes its share of every epoch's data, and the first one writes.
"""

from collections import deque
from collections.abc import Sequence

import torch
from rich.console import Console
from tqdm import tqdm

from pyro_vae.experiments.command_line import parse, user_errors
from pyro_vae.experiments.runs import open_run, report, sentence
from pyro_vae.inference.distributed import processes, rank
from pyro_vae.training.metrics import Record

COLUMNS = (
    "epoch",
    "train_elbo",
    "validation_elbo",
    "validation_log_likelihood",
    "validation_kl",
    "active_units",
    "seconds",
)


def main(args: Sequence[str] | None = None) -> None:
    """Train, then report."""
    with user_errors(), processes():
        run = open_run(parse(args, description=__doc__))
        if rank() > 0:  # takes its share of the work, and leaves the words to the first process
            deque(run.fit(), maxlen=0)
            return
        print(
            f"run folder: {run.folder}\n"
            + "".join(f"{name.removeprefix('validation_'):>16}" for name in COLUMNS)
        )
        every = max(run.config.epochs // 10, 1)
        for record in run.fit():
            if record.epoch % every == 0 or record.epoch == run.config.epochs:
                tqdm.write(row(record))
        result = report(run)
        Console(soft_wrap=True, highlight=False).print(
            f"{sentence(result)}\nrun folder: {run.folder}", markup=False
        )


def row(record: Record) -> str:
    """A line of the table of epochs."""
    values = [getattr(record, name) for name in COLUMNS]
    return "".join(
        f"{value:16.2f}" if isinstance(value, float) else f"{'-' if value is None else value:>16}"
        for value in values
    )


if __name__ == "__main__":
    torch.set_flush_denormal(
        True
    )  # before any thread starts: Adam's moments of pixels that are rarely lit become subnormal, and slow
    main()
