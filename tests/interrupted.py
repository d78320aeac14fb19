"""A training run that is killed and resumed, in forked processes: ``python interrupted.py FOLDER``.

The parent imports torch once and never trains, so that a process costs milliseconds and forking is
safe. It prints how each child ended.
"""

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch._dynamo  # an optimiser imports it: once here, not in every child
from torch import Tensor, nn

from pyro_vae import SVI, VAE, Bernoulli, DiagonalNormal, StandardNormal, Trace_ELBO, linear, mlp
from pyro_vae.training.loop import fit

EPOCHS = 6


class Bits:
    """Binary images from a few prototypes, drawn anew at every visit."""

    def __init__(self, n: int, dim: int = 64, seed: int = 0) -> None:
        prototypes = (
            torch.rand(10, dim, generator=torch.Generator().manual_seed(10)).round() * 0.8 + 0.1
        )
        self.probabilities = prototypes[
            torch.randint(10, (n,), generator=torch.Generator().manual_seed(seed))
        ]

    def __len__(self) -> int:
        return len(self.probabilities)

    def batch(self, indices: Tensor) -> Tensor:
        return torch.bernoulli(self.probabilities[indices])


def train(folder: Path) -> None:
    """Train with all that has a state: batch norm, momenta, annealing, a schedule, patience."""
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 8))
    vae = VAE(StandardNormal(4), Bernoulli(mlp(4, 32, 64)), DiagonalNormal(encoder))
    optim = torch.optim.Adam(vae.parameters(), lr=3e-3)
    svi = SVI(vae.model, vae.guide, optim, Trace_ELBO(beta=linear(200)), clip_norm=100.0)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optim, patience=1, factor=0.7)
    options = {"epochs": EPOCHS, "batch_size": 32, "seed": 1, "patience": 10, "progress": False}
    for _ in fit(
        svi,
        Bits(300),
        Bits(100, seed=1),
        scheduler=scheduler,
        folder=folder,
        resume=True,
        **options,
    ):
        pass


def child(run: Callable[[], None], lifetime: float | None = None) -> int:
    """Run in a forked process, killed after ``lifetime`` seconds.

    Return the signal that ended it, or its exit status.
    """
    pid = os.fork()
    if pid == 0:
        try:
            run()
        except BaseException as error:
            print(repr(error), file=sys.stderr)
            os._exit(1)
        os._exit(0)
    if lifetime is not None:
        time.sleep(lifetime)
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    return -os.waitstatus_to_exitcode(status)


def killed_at(number: int, folder: Path) -> Callable[[], None]:
    """A run that is killed just before its ``number``-th move on the file system."""
    count = 0

    def counting(operation: Callable[..., None]) -> Callable[..., None]:
        def run(*args: object) -> None:
            nonlocal count
            count += 1
            if count == number:
                os.kill(os.getpid(), signal.SIGKILL)
            operation(*args)

        return run

    def run() -> None:
        os.fsync, os.replace = counting(os.fsync), counting(os.replace)
        train(folder)

    return run


def main(folder: Path) -> None:
    """Train without interruption, with ten kills at random moments, and one before each move."""
    whole, random_moments, moves = (folder / name for name in ("whole", "random_moments", "moves"))
    start = time.perf_counter()
    ends = {"whole": [child(lambda: train(whole))]}
    duration = time.perf_counter() - start
    delays = random.Random(0)
    ends["random_moments"] = [
        child(lambda: train(random_moments), delays.uniform(0, duration / 8)) for _ in range(10)
    ]
    ends["moves"] = [child(killed_at(number, moves)) for number in range(1, 12)]
    for path in (random_moments, moves):
        ends[path.name].append(child(lambda path=path: train(path)))
    json.dump({"ends": ends, "seconds": time.perf_counter() - start}, sys.stdout)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
