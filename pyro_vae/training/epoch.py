"""One pass over the data, as a function of the state it starts from, the seed and its number.

Every draw comes from a generator seeded with the seed and the epoch. The caller's generators, and
the modes of the modules, are afterwards as they were before.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import cast

import numpy as np
import torch
from torch import Tensor

from ..data.adapters import Batch, Columns, Data, Loader, take
from ..data.images import Images
from ..evaluation.latents import active_units, site_means
from ..inference.distributed import all_reduce_sum, rank, world_size
from ..inference.svi import SVI
from ..objectives.objective import Estimate
from ..programs.draw import Draw
from ..programs.isolation import in_mode

CHECK_EVERY = 50
"""Checking a loss synchronises the accelerator with the CPU, so it is done every 50 steps."""

VALIDATION_BATCH = 1000


class NonFinite(FloatingPointError):
    """A loss or a weight that is not finite, and the batch of the epoch where it was found."""

    def __init__(self, what: str, number: int, batch: Batch) -> None:
        super().__init__(what)
        self.number = number
        self.batch = batch


def train_epoch(
    svi: SVI,
    data: Data | Loader,
    batches: list[Tensor],
    seed: int,
    epoch: int,
    after_step: Callable[[], object] = bool,
) -> Estimate:
    """Take a step per batch; return the sums of loss, log-likelihood and KL over all processes.

    The losses are checked every ``CHECK_EVERY`` steps, on the CPU at every step; nothing else
    synchronises the device. ``after_step`` may look, and change learning rates.
    Raises :class:`NonFinite` where a loss, or a weight after the last step, is not finite.
    """
    device = device_of(svi)
    every = 1 if device.type == "cpu" else CHECK_EVERY
    unchecked: list[tuple[Estimate, Batch]] = []
    table: list[list[float]] = []
    with seeded(seed, epoch, 1 + rank()), in_mode(svi.pair.modules, True):
        for taken, (estimate, batch) in enumerate(steps(svi, data, batches), 1):
            unchecked.append((estimate, batch))
            if len(unchecked) == every or taken == len(batches):
                table += _checked(unchecked, taken)
                unchecked.clear()  # numbers alone are kept: tensors would scatter the free memory
            after_step()
    _check_weights(svi, len(batches) - 1, batch)
    totals = [sum(column) for column in zip(*table, strict=True)]
    dtype = torch.promote_types(cast(Estimate, svi.estimate).loss.dtype, torch.float32)
    return Estimate(*all_reduce_sum(torch.tensor(totals, dtype=dtype, device=device)))


def steps(svi: SVI, data: Data | Loader, batches: list[Tensor]) -> Iterator[tuple[Estimate, Batch]]:
    """Take a step per batch of indices; yield its estimate and the batch after each."""
    for some in take_all(data, batches, device_of(svi)):
        yield from zip(svi.iter_steps(some), some, strict=True)


def take_all(
    data: Data | Loader, batches: Sequence[Tensor], device: torch.device
) -> Iterator[Sequence[Batch]]:
    """The batches with these indices, on the device; a loader takes those of its own order.

    Several of our own data at a time: what others do when a batch is asked for is not known.
    """
    if isinstance(data, Loader):
        yield from ([batch] for batch in data.batches(device))
        return
    moved = torch.cat(list(batches)).to(device)  # one transfer for all of them
    parts = torch.split(moved, [len(indices) for indices in batches])
    if isinstance(data, Images) or type(data) is Columns:
        yield from data.batches(parts)
        return
    for indices in parts:
        yield [take(data, indices)]


def device_of(svi: SVI) -> torch.device:
    """The device of the weights."""
    first: Tensor = svi.optim.param_groups[0]["params"][0]
    return first.device


def _checked(unchecked: Sequence[tuple[Estimate, Batch]], taken: int) -> list[list[float]]:
    """The numbers of the last estimates, of ``taken`` in all, after a check of their losses.

    An unknown value is NaN. Synchronises the device once.
    """
    values = [_number(value, e.loss) for e, _ in unchecked for value in e]
    on_cpu = values[0].device.type == "cpu"
    numbers = [value.item() for value in values] if on_cpu else torch.stack(values).tolist()
    table = [numbers[i : i + 3] for i in range(0, len(numbers), 3)]
    for i, (loss, *_) in enumerate(table):
        if not math.isfinite(loss):
            number = taken - len(table) + i
            raise NonFinite(f"a loss of {loss}", number, unchecked[i][1])
    return table


def _check_weights(svi: SVI, number: int, batch: Batch) -> None:
    """Check the weights too: the last loss may be finite where its gradient is not."""
    if not all(
        bool(p.isfinite().all()) for group in svi.optim.param_groups for p in group["params"]
    ):
        raise NonFinite("weights that are not finite", number, batch)


def validate(svi: SVI, data: Data | Loader, seed: int) -> tuple[Estimate, int | None]:
    """Return the sums of -ELBO, log-likelihood and KL over the data, and the active units.

    One draw for each datum. The noise depends on the seed alone, so that the figures of two epochs
    differ by the weights only.
    """
    total = None
    means = []
    indices = torch.arange(rank(), len(data), world_size()).to(device_of(svi))
    with seeded(seed, 0, 1 + rank()), svi.pair.looking():
        groups = take_all(data, torch.split(indices, VALIDATION_BATCH), indices.device)
        for batch in chain.from_iterable(groups):
            draw = svi.pair.draw(batch, {})
            log_likelihood = draw.total(draw.log_likelihood)
            kl = draw.total(draw.kl)
            sums = torch.stack([kl - log_likelihood, log_likelihood, kl])
            total = sums if total is None else total + sums
            means.append(_means(draw))
    estimate = Estimate(*all_reduce_sum(cast(Tensor, total)))
    known = [mean for mean in means if mean is not None]
    if len(known) < len(means):
        return estimate, None
    twice = _gather(torch.cat(known), indices, len(data))
    return estimate, active_units(*twice.chunk(2, -1))


def _means(draw: Draw) -> Tensor | None:
    """E[z | x] of the continuous sites side by side, estimated twice, (B, 2 D)."""
    if draw.structure.guide_values:
        return None
    guide_trace = draw.guide_traces[0]
    found = draw.structure
    twice = [site_means(guide_trace, found) for _ in range(2)]
    known = [mean for mean in twice if mean is not None]
    return torch.cat(known, -1) if known else None


def _gather(rows: Tensor, indices: Tensor, total: int) -> Tensor:
    """The rows of all processes, in order, on each of them."""
    if world_size() == 1:
        return rows
    out = rows.new_zeros(total, rows.shape[-1])
    out[indices.to(rows.device)] = rows
    return all_reduce_sum(out)


def epoch_batches(
    num_data: int, batch_size: int, seed: int, epoch: int, rank: int = 0, world_size: int = 1
) -> list[Tensor]:
    """The indices of an epoch's batches, shuffled; the last batch may be shorter.

    Each of several processes has equally many data.

    >>> [len(batch) for batch in epoch_batches(10, batch_size=4, seed=0, epoch=1)]
    [4, 4, 2]
    """
    generator = torch.Generator().manual_seed(_mix(seed, epoch, 0))
    share = torch.randperm(num_data, generator=generator)[rank::world_size][
        : num_data // world_size
    ]
    return list(torch.split(share, batch_size))


@contextmanager
def seeded(*key: int) -> Iterator[None]:
    """Draw from generators seeded with the key, on the CPU and the accelerator in use.

    Afterwards the caller's generators are as they were.
    """
    initialized: bool = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    cuda = range(torch.cuda.device_count() if initialized else 0)
    mps = torch.mps.get_rng_state() if torch.backends.mps.is_available() else None
    with torch.random.fork_rng(cuda, device_type="cuda"):
        # not torch.manual_seed, which seeds devices that are not restored, too
        torch.default_generator.manual_seed(_mix(*key))
        if cuda:
            torch.cuda.manual_seed_all(_mix(*key))
        if mps is not None:
            torch.mps.manual_seed(_mix(*key))
        try:
            yield
        finally:
            if mps is not None:
                torch.mps.set_rng_state(mps)


def _mix(*key: int) -> int:
    """A different seed for every key."""
    return int(np.random.SeedSequence(key).generate_state(1)[0])


def _number(value: Tensor | None, like: Tensor) -> Tensor:
    """A value, or NaN where it is not known."""
    return torch.full_like(like, torch.nan) if value is None else value
