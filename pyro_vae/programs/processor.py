"""Which processor a program runs on."""

import platform
from pathlib import Path

FIELDS = {"model name": "", "cpu family": "family ", "model": "model ", "stepping": "stepping "}
"""The fields of Linux that tell processors apart, for one name stands for several generations."""


def processor() -> str:
    """The processor, such as "AMD EPYC, family 25, model 1, stepping 1".

    Linux tells it in a file, other systems by ``platform``.

    >>> bool(processor())
    True
    """
    info = Path("/proc/cpuinfo")
    first = info.read_text().split("\n\n")[0] if info.is_file() else ""
    lines = [line.partition(":") for line in first.splitlines()]
    facts = {name.strip(): value.strip() for name, _, value in lines}
    known = [f"{prefix}{facts[name]}" for name, prefix in FIELDS.items() if name in facts]
    return ", ".join(known) or platform.processor() or platform.machine()
