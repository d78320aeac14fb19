"""Freed memory that the process keeps for its next tensors."""

from functools import cache

import torch

BLOCK = 31 << 20
"""A size in bytes, just below the largest one from which the GNU C library learns, 32 MiB."""


@cache
def keep_heap() -> None:
    """Let the C library keep memory that tensors of up to 31 MiB have freed.

    At first it takes larger tensors from the system, and gives them back, page by page. After a
    larger block was freed once it serves all smaller ones from memory that it keeps, at most twice
    the size of this block. The block here is never written to, so it costs no memory itself.
    """
    torch.empty(BLOCK, dtype=torch.uint8, device="cpu")
