"""Compare the speed of two checkouts of pyro_vae: ``python scripts/compare.py OLD NEW``.

Each checkout runs in a process of its own; their blocks alternate, and only one runs at a time.
The first number of a row is the minimum over blocks, which other users of the machine disturb
least; the ratio of medians stands beside the ratio of minima. Where the two disagree by more than
some percent, the machine was busy: repeat.
"""

import statistics
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Annotated, Literal

import tyro
from benchmarks.compared import serve
from benchmarks.options import Options
from rich.console import Console
from rich.table import Table

Block = tuple[float, float]


@dataclass(frozen=True)
class Comparison:
    """What is compared."""

    old: tyro.conf.Positional[Path]
    """The folder that holds the old ``pyro_vae``."""
    new: tyro.conf.Positional[Path]
    """The folder that holds the new one."""
    table: Literal["steps", "guides"] = "steps"
    """Steps, an epoch and log p(x) of preset r1; or evaluations with other guides and networks."""
    rounds: int = 7
    """Blocks of each row and checkout."""
    seconds: float = 0.5
    """The length of a block."""
    options: Annotated[Options, tyro.conf.arg(name="")] = field(default_factory=Options)
    """Architecture, sizes and threads."""


def start(checkout: Path, comparison: Comparison) -> tuple[Connection, list[str]]:
    """Start a checkout's process; return its connection and its rows."""
    ours, theirs = get_context("spawn").Pipe()
    table, options = comparison.table, comparison.options
    arguments = (str(checkout.resolve()), theirs, table, options, comparison.seconds)
    get_context("spawn").Process(target=serve, args=arguments, daemon=True).start()
    theirs.close()
    return ours, ours.recv()


def block(connection: Connection, row: str) -> Block:
    """Time one block."""
    connection.send(row)
    seconds, switches = connection.recv()
    return seconds, switches


def summary(row: str, blocks: tuple[list[Block], list[Block]]) -> list[str]:
    """One line of the table."""
    old, new = ([seconds for seconds, _ in side] for side in blocks)
    switches = [f"{statistics.median(rate for _, rate in side):.0f}" for side in blocks]
    ratio = statistics.median(new) / statistics.median(old)
    milliseconds = [f"{1e3 * min(side):.3f}" for side in (old, new)]
    return [row, *milliseconds, f"{min(new) / min(old):.3f}", f"{ratio:.3f}", " / ".join(switches)]


def main() -> None:
    """Compare and print."""
    comparison = tyro.cli(Comparison, description=__doc__)
    (old, names), (new, _) = (start(side, comparison) for side in (comparison.old, comparison.new))
    table = Table("row", "old ms", "new ms", "new / old", "of medians", "switches/s, old / new")
    blocks: dict[str, tuple[list[Block], list[Block]]] = {name: ([], []) for name in names}
    for number in range(comparison.rounds):
        for name in names:
            pair = [(old, blocks[name][0]), (new, blocks[name][1])]
            for connection, results in pair if number % 2 else reversed(pair):
                results.append(block(connection, name))
    for name in names:
        table.add_row(*summary(name, blocks[name]))
    Console(width=max(Console().width, 100)).print(table)
    for connection in (old, new):
        connection.send(None)


if __name__ == "__main__":
    main()
