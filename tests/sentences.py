"""What counts as a refusal: ``ValueError`` or ``TypeError`` whose message says what was expected
and what came."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest


def check_sentence(error: BaseException) -> None:
    """Pyro appends the shapes of a trace, on further lines, to what is raised inside a program."""
    sentence = str(error).splitlines()[0]
    assert re.match(r"expected .+, got .+", sentence), sentence


@contextmanager
def refused() -> Iterator[Any]:
    with pytest.raises((ValueError, TypeError)) as error:
        yield error
    check_sentence(error.value)


def result_or_refusal(call: Callable[[], Any]) -> Any:
    """The result of a call, or None where it is refused in one sentence."""
    try:
        return call()
    except (ValueError, TypeError) as error:
        check_sentence(error)
        return None
