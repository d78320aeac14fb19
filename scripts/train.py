"""Train a variational autoencoder: by default on the embedded digits, in less than a minute.

Ends with the test set's ELBO and importance-weighted log p(x), in nats per image, and leaves a
folder with the configuration, the metrics of every epoch, checkpoints, the result and figures.
--resume RUN goes on with such a folder. Under torchrun --nproc-per-node N each process takes its
share of every epoch's data, and the first one writes.
"""

import signal

if __name__ == "__main__":  # Ctrl-C during the imports, which take seconds, leaves no traceback
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from collections import deque
from collections.abc import Sequence
from typing import Any

import torch
from tqdm import tqdm

from pyro_vae.experiments.command_line import parse, resumable, user_errors
from pyro_vae.experiments.results import sentence
from pyro_vae.experiments.runs import Run, chosen, open_run, report
from pyro_vae.experiments.storage import RESULT, load_json
from pyro_vae.inference.distributed import processes, rank
from pyro_vae.training.metrics import Record

COLUMNS = {
    "epoch": ("", "epoch"),
    "train_elbo": ("train", "ELBO"),
    "validation_elbo": ("validation", "ELBO"),
    "validation_log_likelihood": ("validation", "log-likelihood"),
    "validation_kl": ("validation", "rate (KL)"),
    "active_units": ("validation", "active units"),
    "seconds": ("train", "seconds"),
}
"""The columns of the table of epochs, with the two lines of their headings."""


def main(args: Sequence[str] | None = None) -> None:
    """Train, then report."""
    with user_errors(), processes():
        run = open_run(parse(args, description=__doc__))
        if rank() > 0:  # takes its share of the work, and leaves the words to the first process
            deque(run.fit(), maxlen=0)
            return
        with resumable(run):
            print(opening(run))
            train(run)
            result = finish(run)
        print(f"{sentence(result)}\nrun folder: {run.folder}")


def train(run: Run) -> None:
    """Train; print a line for about every tenth of the epochs."""
    done, epochs = run.epochs_done, run.config.epochs
    if done >= epochs:
        print(f"nothing to train: {done} of {epochs} epochs are done; a larger --epochs goes on")
        return
    every = max(epochs // 10, 1)
    shown = False
    for record in run.fit():
        if not shown:
            tqdm.write(headings())
            shown = True
        if record.epoch % every == 0 or record.epoch == epochs:
            tqdm.write(row(record))
    if not shown:
        print(f"nothing to train: stopped after {done} epochs by --patience {run.config.patience}")


def finish(run: Run) -> dict[str, Any]:
    """Report; where nothing was trained and the result is there, return that."""
    path = run.folder / RESULT
    if path.is_file() and run.config.resume is not None:
        result = load_json(path)
        same = result.get("num_samples") == run.config.num_samples and "unit" in result
        if same and path.stat().st_mtime >= (run.folder / "last.pt").stat().st_mtime:
            return result
    return report(run)


def opening(run: Run) -> str:
    """Where the run is, and what was chosen for it by default."""
    found = chosen(run)
    sizes = found.pop("images")
    defaults = ", ".join(f"{name} {value}" for name, value in found.items())
    return (
        f"run folder: {run.folder}\n"
        f"images: {sizes['train']} to train, {sizes['validation']} to validate, "
        f"{sizes['test']} to test" + (f"\nchosen by default: {defaults}" if defaults else "")
    )


def headings() -> str:
    """The two lines above the table of epochs."""
    return "\n".join(
        "".join(f"{name:>16}" for name in line) for line in zip(*COLUMNS.values(), strict=True)
    )


def row(record: Record) -> str:
    """A line of the table of epochs."""
    return "".join(_cell(getattr(record, name)) for name in COLUMNS)


def _cell(value: float | None) -> str:
    if value is None:
        return f"{'-':>16}"
    return f"{value:16.2f}" if isinstance(value, float) else f"{value:>16}"


if __name__ == "__main__":
    # Before any thread starts: Adam's moments of pixels that are rarely lit become subnormal, and
    # arithmetic on subnormal numbers is slow.
    torch.set_flush_denormal(True)
    main()
