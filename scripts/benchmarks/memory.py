"""Peak memory of an evaluation; memory and speed of a long training."""

import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from pyro_vae import log_likelihood

from .contestants import random_images, svi, vae
from .epoch import training_set
from .measure import wait
from .options import Options

WARM_UP = 100
"""Steps that are not counted: the compilation, and caches that fill."""


def peak_memory(num_samples: int, options: Options) -> float:
    """The peak resident memory of an evaluation in a process of its own, in MB."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        peak: float = pool.apply(_peak, (num_samples, options))
    return peak


def _peak(num_samples: int, options: Options) -> float:
    pair = vae(options)
    x = random_images(options.images, options.device)
    log_likelihood(pair.model, pair.guide, x, num_samples=num_samples)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def endurance(options: Options) -> dict[str, float]:
    """Compare the last quarter of a long training with the first: resident memory, time of a step.

    A quarter's time is the median over its steps.
    """
    memory, times = _train(options)
    first_mb, last_mb = _quarters(memory, statistics.mean)
    first_s, last_s = _quarters(times, statistics.median)
    return {
        "steps": options.endurance_steps,
        "resident MB, first quarter": first_mb,
        "resident MB, last quarter": last_mb,
        "memory, last / first": last_mb / first_mb,
        "step ms, first quarter": 1e3 * first_s,
        "step ms, last quarter": 1e3 * last_s,
        "step, last / first": last_s / first_s,
    }


def _train(options: Options) -> tuple[list[float], list[float]]:
    """Resident MB every 100 steps, and seconds of every step."""
    train = training_set(options)
    ours = svi(vae(options), compile=True)
    memory: list[float] = []
    times: list[float] = []
    for step in range(options.endurance_steps):
        x = train.batch(torch.randint(len(train), (options.batch,)))
        start = time.perf_counter()
        ours.step(x)
        wait()
        if step >= WARM_UP:
            times.append(time.perf_counter() - start)
            if step % 100 == 0:
                memory.append(_resident())
    return memory, times


def _quarters(values: list[float], average: Callable[[list[float]], float]) -> tuple[float, float]:
    size = len(values) // 4
    return average(values[:size]), average(values[-size:])


def _resident() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20
