"""Warnings of torch's compiler that concern no user of it."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_compiler() -> Iterator[None]:
    """Silence deprecated calls in the compiler, and its warning about CUDA where no GPU is."""
    logger = logging.getLogger("torch.utils.cpp_extension")
    logger.addFilter(_keeps)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        logger.removeFilter(_keeps)


def _keeps(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith("No CUDA runtime is found")
