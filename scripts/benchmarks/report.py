"""The tables."""

from typing import Any

from rich.console import Console
from rich.table import Table

from .measure import SIZE

MACHINE = f"one product of {SIZE} x {SIZE}"
"""The row that measures the machine."""


def show(console: Console, title: str, rows: list[dict[str, Any]], reference: str) -> None:
    """Print one table."""
    headings = ("ms", "least", "ratio", "of least", "GFLOP/s", "share", "switches/s")
    caption = (
        f"ratio: to {reference}. least: minimum over blocks. GFLOP/s of the products alone, and "
        "their share of the machine's rate."
    )
    table = Table(title=title, caption=caption)
    table.add_column("row", overflow="fold", ratio=1)
    for heading in headings:
        table.add_column(heading, no_wrap=True, justify="right")
    for row in rows:
        times = (row[key] for key in ("ms", "minimum ms", "ratio", "ratio of minima"))
        rates = f"{row['GFLOP/s']:.0f}", f"{row['share']:.2f}", f"{row['switches per second']:.0f}"
        table.add_row(row["row"], *(f"{value:.3f}" for value in times), *rates)
    console.print(table)


def with_rates(rows: list[dict[str, Any]], operations: float) -> list[dict[str, Any]]:
    """Add to each row the rate of its products, of its minimum, and the share of the machine's."""
    machine = next(row for row in rows if row["row"] == MACHINE)
    best = _rate(machine, 2 * SIZE**3)
    rated = []
    for row in rows:
        rate = best if row is machine else _rate(row, operations)
        rated.append(row | {"GFLOP/s": rate, "share": rate / best})
    return rated


def _rate(row: dict[str, Any], operations: float) -> float:
    return operations / (1e6 * float(row["minimum ms"]))
