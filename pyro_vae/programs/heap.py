"""Freed memory that the process keeps for its next tensors."""

from functools import cache

import torch

BLOCK = 31 << 20
"""A size in bytes, just below the largest one from which the GNU C library learns, 32 MiB."""


@cache
def keep_heap() -> None:
    """Let the C library keep the memory that tensors of up to 31 MiB have freed.

    At first it takes larger tensors from the system and gives them back, page by page. After a
    larger block was freed once, it serves all smaller ones from memory of its own, and gives memory
    back only where more than twice this block is free at the end of it. This holds for the whole
    process from then on, as if any other tensor of this size had been freed.
    """
    torch.empty(BLOCK, dtype=torch.uint8, device="cpu")
