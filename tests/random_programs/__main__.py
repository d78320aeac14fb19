"""Check random programs: ``python -m tests.random_programs --number 5000 --seed 0``."""

import argparse
import json
import logging
import signal
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from .check import Outcome, check_many, report, worst

STATUSES = ("agreement", "refusal", "failure", "invalid")


def table(rows: Sequence[Sequence[object]], head: Sequence[str]) -> str:
    """Rows as a text table."""
    cells = [[str(cell) for cell in row] for row in (head, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    )


def by(outcomes: Iterable[Outcome], keys: Callable[[Outcome], Iterable[str]], head: str) -> str:
    """How the checks ended, for each of some keys."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for outcome in outcomes:
        for key in keys(outcome):
            counts[key][outcome.status] += 1
    return table(
        [(key, *(counts[key][status] for status in STATUSES)) for key in sorted(counts)],
        (head, *STATUSES),
    )


def refusals(outcomes: Sequence[Outcome]) -> str:
    """The sentences of refusals, their numbers and their share in all checks."""
    counts = Counter(
        sentence(outcome.detail) for outcome in outcomes if outcome.status == "refusal"
    )
    return table(
        [(n, f"{n / len(outcomes):.1%}", text) for text, n in counts.most_common()],
        ("checks", "share", "sentence"),
    )


def sentence(detail: str) -> str:
    """A refusal up to what it says of this program."""
    return detail.split(", got")[0][:110]


def faults(outcomes: Iterable[Outcome]) -> str:
    """The likely faults: programs, checks, and one seed of each kind of failure."""
    found: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        if outcome.status == "failure":
            found[outcome.fault].append(outcome)
    rows = []
    for fault, those in sorted(found.items(), key=lambda item: -len(item[1])):
        checks = Counter(outcome.check for outcome in those)
        seeds = {outcome.spec.seed for outcome in those}
        rows.append(
            (
                fault,
                len(seeds),
                len(those),
                ", ".join(f"{name} {n}" for name, n in checks.most_common()),
                min(seeds),
            )
        )
    return table(rows, ("likely fault", "programs", "checks", "by check", "a seed"))


def summary(outcomes: Sequence[Outcome], seconds: float) -> str:
    """All tables."""
    programs = len({outcome.spec.seed for outcome in outcomes})
    ended = ", ".join(f"{status} {n}" for status, n in worst(list(outcomes)).items())
    parts = [
        f"{programs} programs, {len(outcomes)} checks, {seconds:.0f} s "
        f"({200 * seconds / programs:.0f} s for 200 programs)",
        f"programs by their worst outcome: {ended}",
        by(outcomes, lambda outcome: [outcome.check], "check"),
        by(outcomes, lambda outcome: outcome.spec.features, "feature"),
        refusals(outcomes),
        faults(outcomes),
    ]
    return "\n\n".join(parts)


def write(outcomes: Iterable[Outcome], path: Path) -> None:
    """Write one line of JSON for each check, so that two versions can be compared."""
    names = ("check", "status", "detail")
    rows = ({"seed": o.spec.seed} | {name: getattr(o, name) for name in names} for o in outcomes)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def main() -> None:
    """Check, print the tables and the failing programs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--number", type=int, default=200, help="how many programs")
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--only", type=int, default=None, help="one seed, all of its checks")
    parser.add_argument(
        "--share", type=float, default=0.5, help="of the checks that each program gets"
    )
    parser.add_argument(
        "--compiled", type=int, default=0, help="how many programs to compile, instead"
    )
    parser.add_argument("--show", type=int, default=3, help="how many failing programs to print")
    parser.add_argument("--write", type=Path, default=None, help="a file for all outcomes, JSON")
    given = parser.parse_args()
    logging.disable(logging.INFO)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what is known is printed
    seeds = range(given.seed, given.seed + given.number)
    if given.compiled:
        from .compiled import check_compiled

        outcomes, seconds = check_compiled(given.seed, given.compiled)
    elif given.only is not None:
        outcomes, seconds = check_many(range(given.only, given.only + 1), share=1.0)
    else:
        outcomes, seconds = check_many(seeds, given.share)
    if given.write is not None:
        write(outcomes, given.write)
    print(summary(outcomes, seconds))
    wrong = [outcome for outcome in outcomes if outcome.status in ("failure", "invalid")]
    for outcome in wrong if given.only is not None else wrong[: given.show]:
        print("\n" + "#" * 100 + "\n" + report(outcome))


if __name__ == "__main__":
    main()
