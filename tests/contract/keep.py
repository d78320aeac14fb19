"""The uses that write files: what was saved goes on as if nothing had happened."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyro
import torch
from torch import Tensor

from pyro_vae import SVI, Trace_ELBO, fit
from pyro_vae.training.checkpoint import (
    load_checkpoint,
    restore_svi,
    save_checkpoint,
    svi_state,
)

from .pairs import PAIRS
from .subject import ROWS, Subject


class Arguments:
    """The arguments of a call as training data."""

    def __init__(self, subject: Subject) -> None:
        self.args = subject.args

    def __len__(self) -> int:
        return ROWS

    def batch(self, indices: Tensor) -> tuple[Tensor, ...]:
        """The arguments of some data."""
        return tuple(a[indices] for a in self.args)


def started(name: str) -> tuple[Subject, SVI]:
    """A pair with an optimiser that has a state."""
    subject = PAIRS[name]()
    adam = torch.optim.Adam(subject.used(), lr=1e-2)
    return subject, SVI(subject.model, subject.guide, adam, loss=Trace_ELBO())


def save_and_load(name: str) -> None:
    """A pair of other weights, restored, has the next steps of the pair that was saved."""
    first, saved = started(name)
    second, restored = started(name)
    step(saved, first)
    with torch.no_grad():
        for p in second.parameters():
            p.add_(0.5)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "svi.pt"
        save_checkpoint(path, svi_state(saved))
        restore_svi(restored, load_checkpoint(path), path)
    for _ in range(2):
        losses = step(saved, first), step(restored, second)
        equal(*losses)
    equal_weights(first, second)


def resume(name: str) -> None:
    """A run that was interrupted ends with the weights of one that was not."""
    straight, svi = started(name)
    run(svi, straight, epochs=2)
    with tempfile.TemporaryDirectory() as folder:
        options = {"folder": Path(folder), "resume": True}
        first, svi = started(name)
        run(svi, first, epochs=1, **options)
        second, svi = started(name)
        run(svi, second, epochs=2, **options)
    equal_weights(straight, second)
    moved: Callable[[Tensor, Tensor], bool] = torch.equal
    if all(map(moved, PAIRS[name]().used(), second.used())):
        raise AssertionError("expected weights that moved, got none")


def run(svi: SVI, subject: Subject, epochs: int, **options: Any) -> None:
    """Train on the pair's own arguments."""
    list(fit(svi, Arguments(subject), epochs=epochs, batch_size=ROWS, progress=False, **options))


def step(svi: SVI, subject: Subject) -> Tensor:
    """A step at a seed."""
    pyro.set_rng_seed(7)
    return svi.step(*subject.args)


def equal(ours: Tensor, theirs: Tensor) -> None:
    """Raise unless two tensors are equal."""
    if not torch.equal(ours, theirs):
        raise AssertionError(f"expected {theirs}, got {ours}")


def equal_weights(first: Subject, second: Subject) -> None:
    """Raise unless weights and buffers are equal."""
    for a, b in zip(first.modules, second.modules, strict=True):
        for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True):
            equal(x, y)
