"""A run folder for a script that trains one graphical model: see ``scripts/programs``.

A script has a dataclass of options that extends :class:`ProgramOptions`, and a ``main`` that reads
like an experiment: data, programs, :func:`pyro_vae.fit`, numbers, figures. The folder receives

- ``config.json``: the options; ``about.json``: command, versions and machine of each session;
- the checkpoints and ``metrics.csv`` of ``fit``, in the folder itself or in one of its subfolders;
- ``result.json``: the numbers, written before any figure is drawn; ``figures/``.

A script that is called again with the same options and the same folder goes on where it stopped.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
import tyro
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from ..plots.mosaic import save
from ..training.epoch import seeded
from .command_line import user_errors
from .storage import (
    ABOUT,
    CONFIG,
    FIGURES,
    RESULT,
    as_json,
    check_same,
    load_json,
    save_json,
    sessions,
)

FREE = {"output_dir", "data_dir", "progress", "epochs"}
"""The options that may differ when a run is continued."""


@dataclass(frozen=True)
class ProgramOptions:
    """The options that every script has."""

    output_dir: Path | None = None
    """The folder of the run; by default runs/ and the name of the script."""
    data_dir: Path | None = None
    """Where the data are; by default the folder data."""
    epochs: int = 1
    """Passes over the training set."""
    seed: int = 0
    """Of weights, batches and draws."""
    progress: bool = True
    """Show how far each part is."""


Options = TypeVar("Options", bound=ProgramOptions)


@dataclass(frozen=True)
class Folder:
    """The folder of a run."""

    path: Path

    def write(self, result: Mapping[str, Any], name: str = RESULT) -> None:
        """Write numbers as JSON, then print those that are not tables themselves."""
        save_json(result, self.path / name)
        table = Table(box=None, show_header=False)
        for key, value in result.items():
            if not isinstance(value, list | tuple | Mapping):
                shown = f"{value:.4g}" if isinstance(value, float) else str(value)
                table.add_row(key, shown)
        Console().print(table)

    def draw(self, name: str, figure: Figure) -> None:
        """Write a figure as ``figures/name.png``."""
        (self.path / FIGURES).mkdir(exist_ok=True)
        save(figure, self.path / FIGURES / f"{name}.png")


@contextmanager
def program(
    options: type[Options], args: Sequence[str] | None, description: str | None
) -> Iterator[tuple[Options, Folder]]:
    """Parse the options; open the folder; seed; errors of the user end in one sentence.

    Subnormal numbers are flushed to zero, for arithmetic on them is slow.

    Raises ``SystemExit`` with status 2 where the folder holds a run with other options.
    """
    given = tyro.cli(options, args=args, description=description)
    torch.set_flush_denormal(True)
    with user_errors():
        path = given.output_dir or Path("runs") / Path(sys.argv[0]).stem
        folder = _open(path, given)
        with seeded(given.seed):
            yield given, folder
        print(f"run folder: {path}")


def _open(path: Path, options: ProgramOptions) -> Folder:
    """Make the folder, or check that it holds a run with the same options."""
    values = as_json(asdict(options))
    if (path / CONFIG).is_file():
        expected = f"the options of the run in {path}"
        check_same(values, load_json(path / CONFIG), values.keys() - FREE, expected)
    path.mkdir(parents=True, exist_ok=True)
    save_json(values, path / CONFIG)
    save_json({"sessions": sessions(path, torch.device("cpu"))}, path / ABOUT)
    return Folder(path)
