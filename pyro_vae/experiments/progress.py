"""How far a long part is: its name, then a bar, or without a terminal one line a minute."""

import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from typing import Any, TextIO

MINUTE = 60.0

CONTROL = re.compile(r"\r|\n|\x1b\[[0-9;]*[A-Za-z]")
"""How a bar moves the cursor of a terminal."""


@contextmanager
def part(label: str, show: bool = True) -> Iterator[bool]:
    """Name a part of the work on stderr; yield whether it should draw a bar (tqdm).

    In a terminal the bar appears below the name. Elsewhere (a file, a pipe) its state, with the
    time left, becomes a line of its own once a minute.

    >>> with part("counting", show=False) as progress:
    ...     progress
    False
    """
    if not show:
        yield False
        return
    print(f"{label} ...", file=sys.stderr, flush=True)
    if sys.stderr.isatty():
        yield True
        return
    with redirect_stderr(_Lines(sys.stderr, label)):  # type: ignore[type-var]
        yield True


class _Lines:
    """A text file that passes a bar on once a minute, as a line, and all else at once."""

    def __init__(self, file: TextIO, label: str) -> None:
        self.file = file
        self.label = label
        self.last = time.monotonic()
        self.bar = False

    def write(self, text: str) -> int:
        if text.startswith("\r") or (self.bar and CONTROL.sub("", text) == ""):
            self.bar = True
            self._write_bar(CONTROL.sub("", text).strip())
        else:
            self.bar = False
            self.file.write(text)
        return len(text)

    def _write_bar(self, bar: str) -> None:
        now = time.monotonic()
        if bar and now - self.last >= MINUTE:
            self.last = now
            self.file.write(f"{self.label}: {bar}\n")
            self.file.flush()

    def flush(self) -> None:
        self.file.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)
