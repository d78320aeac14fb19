"""How a call ends: in a value, in a refusal with a sentence, or in a failure."""

from collections.abc import Callable
from typing import Any


class Refused(Exception):
    """The call was refused in one sentence."""


class Failed(Exception):
    """A crash, or another number than the reference's."""


def ask(call: Callable[[], Any]) -> Any:
    """The value of a call; ``Refused`` for "expected ...", ``Failed`` for any other error."""
    try:
        return call()
    except (ValueError, TypeError, NotImplementedError) as error:
        message = str(error)
        if message.startswith("expected ") and "\n" not in message:
            raise Refused(message) from error
        raise Failed(f"raised {type(error).__name__}: {message[:300]}") from error
    except Exception as error:
        own = type(error).__module__.startswith("pyro_vae")
        if own and str(error).startswith("expected "):
            raise Refused(str(error)) from error
        raise Failed(f"raised {type(error).__name__}: {str(error)[:300]}") from error


def demand(condition: bool, sentence: str) -> None:
    """Raise ``Failed`` unless the condition holds."""
    if not condition:
        raise Failed(sentence)
