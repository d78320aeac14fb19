"""One process, or several that share the work: each with its own data, all with the same weights."""

import gc
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

T = TypeVar("T")


@contextmanager
def processes() -> Iterator[None]:
    """Join the processes that ``torchrun`` started, if it did, on this machine or several.

    Everything in between (data shards, gradients, records, files) looks at ``torch.distributed`` by itself.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield
        dist.barrier()  # nobody leaves while another still talks
    finally:
        gc.collect()  # replicas that are done for may hold the group in a cycle
        dist.destroy_process_group()


def local_rank() -> int:
    """The number of this process among those of its machine: its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0")) if _running() else 0


def agreed(value: T) -> T:
    """Return the first process's value, on each of them."""
    values = [value]
    if _running():
        dist.broadcast_object_list(values)
    return values[0]


class _Replica(nn.Module):
    """A function of modules as a module, which is what ``DistributedDataParallel`` takes."""

    def __init__(self, function: Callable[..., Any], modules: Sequence[nn.Module]) -> None:
        super().__init__()
        self.owners = nn.ModuleList(modules)
        self.function = function

    def forward(self, *args: Any) -> Any:
        return self.function(*args)


def replicated(
    function: Callable[..., Any], modules: Sequence[nn.Module]
) -> DistributedDataParallel:
    """A differentiable function of modules, whose gradient is averaged over the processes.

    Raises ``ValueError`` where there is no module, whose parameters could be shared.
    """
    if not modules:
        raise ValueError(
            "expected model and guide to be methods of modules where several processes train, got functions"
        )
    return DistributedDataParallel(_Replica(function, modules))


def rank() -> int:
    """The number of this process; 0 where there is only one."""
    return dist.get_rank() if _running() else 0


def world_size() -> int:
    """The number of processes."""
    return dist.get_world_size() if _running() else 1


def all_reduce_sum(tensor: Tensor) -> Tensor:
    """Return the sum of a tensor over the processes, on each of them; ``tensor`` is overwritten."""
    if _running():
        dist.all_reduce(tensor)
    return tensor


def barrier() -> None:
    """Wait until every process is here."""
    if _running():
        dist.barrier()


def _running() -> bool:
    return dist.is_available() and dist.is_initialized()
