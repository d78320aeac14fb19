"""Methods and functions of the compiler in our form, for the graphs of one thread."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from threading import RLock
from types import ModuleType
from typing import Any

_lock = RLock()
_inside: ContextVar[bool] = ContextVar("_inside", default=False)  # false in other threads


@contextmanager
def replaced(owner: type | ModuleType, name: str, ours: Callable[..., Any]) -> Iterator[None]:
    """A method is ``ours(theirs, self, ...)`` inside, for this thread; for others it is theirs.

    So is a function of a module, ``ours(theirs, ...)``. One thread replaces methods at a time.
    """
    with _lock:
        theirs, own = getattr(owner, name), vars(owner).get(name)

        def method(*args: Any, **kwargs: Any) -> Any:
            if not _inside.get():
                return theirs(*args, **kwargs)
            return ours(theirs, *args, **kwargs)

        token = _inside.set(True)
        setattr(owner, name, method)
        try:
            yield
        finally:
            if own is None:  # it was inherited
                delattr(owner, name)
            else:
                setattr(owner, name, own)
            _inside.reset(token)
