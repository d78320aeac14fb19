"""One or several processes with the same weights, each with its own share of the data."""

import gc
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")

AVAILABLE = dist.is_available()
"""Whether torch was built with ``torch.distributed``."""


@contextmanager
def processes() -> Iterator[None]:
    """Join the processes that ``torchrun`` started, on one machine or several.

    Without ``torchrun``, and where the processes have joined already, it does nothing. Code inside
    this context needs no other argument: data shards, gradients, records and files ask
    ``torch.distributed``.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or _running():
        yield
        return
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield
        dist.barrier()  # no process leaves while another still communicates
    finally:
        gc.collect()  # unused replicas may hold the group in a reference cycle
        dist.destroy_process_group()


def local_rank() -> int:
    """The index of this process on its machine, which is the index of its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0")) if _running() else 0


def agreed(value: T) -> T:
    """Return the value of the first process, on every process."""
    values = [value]
    if _running():
        dist.broadcast_object_list(values)
    return values[0]


def rank() -> int:
    """The index of this process; 0 where there is only one."""
    return dist.get_rank() if _running() else 0


def world_size() -> int:
    """The number of processes."""
    return dist.get_world_size() if _running() else 1


def all_reduce_sum(tensor: Tensor) -> Tensor:
    """Return the sum of a tensor over the processes, on every process; overwrites ``tensor``."""
    if _running():
        dist.all_reduce(tensor)
    return tensor


def broadcast(tensors: Iterable[Tensor]) -> None:
    """Copy the values of some tensors from the first process to all processes."""
    if _running():
        for tensor in tensors:
            dist.broadcast(tensor.detach(), 0)


def barrier() -> None:
    """Wait until every process has reached this call."""
    if _running():
        dist.barrier()


def _running() -> bool:
    return AVAILABLE and dist.is_initialized()
