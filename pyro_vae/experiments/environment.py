"""What a number depends on beside its configuration: versions, command, machine."""

import os
import platform
import shlex
import sys
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from ..programs.processor import processor

PACKAGES = ("pyro_vae", "pyro-ppl", "numpy", "zuko")


def session(device: torch.device) -> dict[str, Any]:
    """Describe this process: the date, the command, the versions and the machine.

    >>> sorted(session(torch.device("cpu")))
    ['command', 'date', 'directory', 'machine', 'versions']
    """
    return {
        "date": f"{datetime.now().astimezone():%Y-%m-%d %H:%M:%S %z}",
        "command": shlex.join([Path(sys.executable).name, *sys.argv]),
        "directory": str(Path.cwd()),
        "versions": versions(),
        "machine": machine(device),
    }


def versions() -> dict[str, str | None]:
    """The versions of Python, this package, and what its numbers depend on."""
    found = {name: _version(name) for name in PACKAGES}
    return {"python": platform.python_version(), **found, "torch": str(torch.__version__)}


def machine(device: torch.device) -> dict[str, Any]:
    """The system, the processor, its cores and torch's threads, and the accelerator if any."""
    facts: dict[str, Any] = {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": str(device),
    }
    if device.type == "cuda":
        facts["accelerator"] = torch.cuda.get_device_name(device)
    return facts


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
