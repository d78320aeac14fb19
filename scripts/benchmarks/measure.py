"""Timing in interleaved blocks, on a machine that others may use too."""

import os
import platform
import resource
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from pyro_vae.programs.processor import processor

from .options import Options, Rows, Step

SIZE = 1024
"""Rows and columns of the product that measures the machine."""

REPEATS = 3
"""How often a disturbed block is repeated at most."""


def wait() -> None:
    """Wait until the GPU, where one is in use, has done all that was asked of it."""
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.synchronize()


def timed(step: Step, count: int, limit: float = float("inf")) -> tuple[float, float]:
    """Seconds per call over ``count`` calls, and involuntary context switches per second.

    An involuntary switch means that another process wanted the core. A block with more than
    ``limit`` of them per second is repeated; the quietest one counts.
    """
    quietest = (0.0, float("inf"))
    for _ in range(1 + REPEATS):
        switches = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
        wait()
        start = time.perf_counter()
        for _ in range(count):
            step()
        wait()
        seconds = time.perf_counter() - start
        rate = (resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw - switches) / seconds
        quietest = min(quietest, (seconds / count, rate), key=lambda block: block[1])
        if rate <= limit:
            break
    return quietest


def measure(rows: Rows, reference: str, options: Options, steps: int) -> list[dict[str, Any]]:
    """Time all rows, block by block; the first block is not counted.

    ``ratio`` is the median over blocks of a row's time divided by the reference's in the same
    block: what slows the machine for some seconds slows both.
    """
    for step in rows.values():
        for _ in range(3):
            step()
    times: dict[str, list[float]] = {name: [] for name in rows}
    switches: dict[str, list[float]] = {name: [] for name in rows}
    for _ in range(options.blocks):
        for name, step in rows.items():
            inner = getattr(step, "steps", 1)  # steps inside one call
            seconds, rate = timed(step, max(steps // inner, 1), options.switches)
            times[name].append(seconds / inner)
            switches[name].append(rate)
    return [
        _summary(name, times[name][1:], times[reference][1:], switches[name][1:]) for name in rows
    ]


def _summary(
    name: str, times: list[float], reference: list[float], switches: list[float]
) -> dict[str, Any]:
    return {
        "row": name,
        "ms": 1e3 * statistics.median(times),
        "minimum ms": 1e3 * min(times),
        "ratio": statistics.median(a / b for a, b in zip(times, reference, strict=True)),
        "ratio of minima": min(times) / min(reference),
        "switches per second": statistics.median(switches),
    }


def flops(step: Step) -> int:
    """Floating-point operations of the matrix products and convolutions of an eager step."""
    with FlopCounterMode(display=False) as counter:
        step()
    return int(counter.get_total_flops())


def machine_product(device: str) -> Step:
    """One large float32 product, by torch's call or oneDNN's, whichever is faster here."""
    a, b = (torch.randn(SIZE, SIZE, device=device) for _ in range(2))
    calls: list[Step] = [lambda: torch.mm(a, b)]
    if device == "cpu" and torch.backends.mkldnn.is_available():
        calls.append(lambda: _onednn(a, b))
    return min(calls, key=lambda call: min(timed(call, 3)[0] for _ in range(5)))


def _onednn(a: Tensor, b: Tensor) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise.default(a, b, None, "none", [], "")
    return product


def machine(device: str) -> dict[str, Any]:
    """What the numbers were measured on."""
    gpu = {} if device == "cpu" else {"gpu": torch.cuda.get_device_name(device)}
    return gpu | {
        "cpu": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": Path("/proc/loadavg").read_text().split()[0],
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
