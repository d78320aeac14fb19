"""Renew golden values: ``python -m tests.golden.renew ["guide iaf, objective dreg" ...]``.

Without names all entries are renewed. Where values change, the change must be one of the order of
random draws: the mean of the entry's random number over new seeds must agree with the stored
distribution, which stays; else nothing is written. ``--redefine`` says that the numbers themselves
change on purpose, and replaces the distribution too.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))  # the tests' own modules

from golden.check import (
    differences,
    distribution,
    is_refusal,
    load,
    rounded,
    same_in_distribution,
    save,
)
from golden.entries import ENTRIES


def renewed(name: str, old: dict[str, Any] | None, redefine: bool) -> dict[str, Any]:
    """The new content of an entry, or ``ValueError`` where it is more than new draws."""
    values = rounded(ENTRIES[name].values())
    if old is not None and not differences(old["values"], values):
        return old
    if is_refusal(values) or old is None or redefine:
        if old is not None and not redefine:
            raise ValueError(f"expected the values of {name!r}, got {values}: use --redefine")
        law = {} if is_refusal(values) else {"distribution": rounded(distribution(name))}
        return {"values": values, **law, "redrawn": False}
    if is_refusal(old["values"]) or not same_in_distribution(name):
        raise ValueError(f"expected new draws of the same law for {name!r}: use --redefine")
    return old | {"values": values, "redrawn": True}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", help="entries to renew; by default all")
    parser.add_argument("--redefine", action="store_true", help="the numbers change on purpose")
    options = parser.parse_args(argv)
    unknown = [name for name in options.names if name not in ENTRIES]
    if unknown:
        parser.error(f"expected names of entries, got {unknown}: see tests/golden/entries.py")
    files = {file: load(file) for file in sorted({entry.file for entry in ENTRIES.values()})}
    refused = 0
    for name in options.names or ENTRIES:
        stored = files[ENTRIES[name].file]
        try:
            new = renewed(name, stored.get(name), options.redefine)
        except ValueError as error:
            print(error)
            refused += 1
            continue
        print(f"{'kept' if new is stored.get(name) else 'renewed'}: {name}", flush=True)
        stored[name] = new
    if refused:
        print(f"nothing is written: {refused} entries changed in more than their draws")
        return 1
    for file, stored in files.items():
        save(file, stored)
    return 0


if __name__ == "__main__":
    sys.exit(main())
