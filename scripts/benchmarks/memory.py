"""Peak memory of evaluations and trainings; memory and speed of a long training."""

import multiprocessing
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pyro_vae import fit, log_likelihood

from .contestants import random_images, svi, vae
from .epoch import training_set
from .measure import wait
from .options import D, Options

WARM_UP = 100
"""Steps that are not counted: the compilation, and caches that fill."""


def peaks(options: Options) -> list[dict[str, Any]]:
    """The peak memory of evaluations and of trainings, each in a process of its own.

    ``peak MB`` is the resident memory, of which ``files MB`` are pages of files at the end: the
    libraries, and data that are mapped from a file. The system takes these back when it needs them.
    """
    jobs: list[tuple[Callable[..., None], dict[str, Any]]] = [
        (_evaluate, {"images": images, "K": K}) for images, K in ((64, 100), (64, 5000), (640, 100))
    ]
    jobs += [
        (_train_on, {"batch": batch, "data": data, "mapped": mapped})
        for batch, data, mapped in (
            *((128, 10_000, False), (1024, 10_000, False)),
            *((128, 100_000, False), (128, 100_000, True)),
        )
    ]
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        return [pool.apply(_peak, (job, what, options)) for job, what in jobs]


def _peak(job: Callable[..., None], what: dict[str, Any], options: Options) -> dict[str, Any]:
    job(options, **what)
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    # not getrusage, whose peak starts at the memory of the process that started this one
    peak, files = (int(status[key].split()[0]) / 1024 for key in ("VmHWM", "RssFile"))
    return {"what": job.__name__.strip("_"), **what, "peak MB": peak, "files MB": files}


def _evaluate(options: Options, images: int, K: int) -> None:
    pair = vae(options)
    x = random_images(images, options.device)
    log_likelihood(pair.model, pair.guide, x, num_samples=K)


def _train_on(options: Options, batch: int, data: int, mapped: bool) -> None:
    """One epoch on float32 data, in memory or mapped from a file."""
    with tempfile.TemporaryDirectory() as folder:
        x = np.lib.format.open_memmap(f"{folder}/x.npy", "w+", np.float32, (data, D))
        train = svi(vae(options), compile=False)
        fit(train, x if mapped else x.copy(), epochs=1, batch_size=batch, progress=False)


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
    times = np.full(options.endurance_steps, np.nan)  # a list would grow
    for step in range(options.endurance_steps):
        x = train.batch(torch.randint(len(train), (options.batch,)))
        start = time.perf_counter()
        ours.step(x)
        wait()
        times[step] = time.perf_counter() - start
        if step >= WARM_UP and step % 100 == 0:
            memory.append(_resident())
    return memory, times[WARM_UP:].tolist()


def _quarters(values: list[float], average: Callable[[list[float]], float]) -> tuple[float, float]:
    size = len(values) // 4
    return average(values[:size]), average(values[-size:])


def _resident() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20
