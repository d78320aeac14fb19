"""Checkpoints: written whole or not at all, checked before they are read, never executed."""

import io
import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import nn

from ..inference.svi import SVI
from ..programs.modules import modules_of
from ..programs.sites import Program

LAST, PREVIOUS, BEST = "last.pt", "previous.pt", "best.pt"


State = dict[str, Any]


@contextmanager
def replacing(path: Path, previous: Path | None = None) -> Iterator[BinaryIO]:
    """Write a file that replaces ``path`` once it is whole and on the disk; until then ``path`` stays as it is.

    With ``previous`` the file that was at ``path`` moves there. A process killed between the two moves leaves it there,
    and nothing at ``path``.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if previous is not None and path.exists():
            path.replace(previous)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def save_checkpoint(path: Path, state: State, *, previous: Path | None = None) -> None:
    """Save tensors, numbers, strings, and lists, tuples and dictionaries of them; see :func:`replacing`.

    Raises ``OSError`` where the file cannot be written; what was at ``path`` (or is at ``previous``) is then whole.
    """
    with replacing(path, previous) as file:
        torch.save(state, file)


def load_checkpoint(path: Path, map_location: str | torch.device = "cpu") -> State:
    """Load what :func:`save_checkpoint` saved, after checking every byte of it; code in the file is not executed.

    Raises ``FileNotFoundError`` where there is no file, ``ValueError`` where it is corrupt, truncated or foreign.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "numbers.pt"
    >>> save_checkpoint(path, {"epoch": 3})
    >>> load_checkpoint(path)
    {'epoch': 3}
    """
    with path.open("rb") as file:
        try:
            state = torch.load(_checked(file), map_location, weights_only=True)
        except (
            Exception
        ) as error:  # a damaged file can make zipfile and torch raise almost anything
            raise ValueError(
                f"{_EXPECTED} at {path}, got a corrupt, truncated or foreign file"
            ) from error
    if not isinstance(state, dict):
        raise ValueError(f"{_EXPECTED} at {path}, got a {type(state).__name__}")
    return state


def _checked(file: BinaryIO) -> BinaryIO:
    """Copy a zip archive member by member, each against its checksum.

    Torch must not read the file itself: it finds members by other fields of their headers, which no checksum covers.
    """
    copy = io.BytesIO()
    with zipfile.ZipFile(file) as source, zipfile.ZipFile(copy, "w") as target:
        for member in source.infolist():
            target.writestr(member.filename, source.read(member))
    copy.seek(0)
    return copy


_EXPECTED = "expected a checkpoint written by save_checkpoint"


def latest(folder: Path) -> Path | None:
    """The checkpoint to resume from: ``last.pt``, or where there is none ``previous.pt``, or where there is none ``None``."""
    return next((folder / name for name in (LAST, PREVIOUS) if (folder / name).exists()), None)


def load_latest(path: Path) -> State:
    """Load the checkpoint to resume from; where it is corrupt, say what to do.

    Raises ``ValueError`` as :func:`load_checkpoint` does.
    """
    try:
        return load_checkpoint(path)
    except ValueError as error:
        previous = path.with_name(PREVIOUS)
        if path == previous or not previous.exists():
            raise
        raise ValueError(f"{error}; delete it to resume from {previous}") from error


def load_weights(path: Path, *programs: Program) -> State:
    """Load the weights and buffers of the modules behind the programs from a checkpoint of a run; return the checkpoint.

    Raises ``ValueError`` where the checkpoint is not one of these modules.
    """
    state = load_checkpoint(path)
    restore_modules(modules_of(*programs), state, path)
    return state


def svi_state(svi: SVI) -> State:
    """What an ``SVI`` is made of: weights and buffers, the optimiser's state, the number of steps taken.

    Raises ``ValueError`` where the optimiser holds parameters of no module behind model or guide: they would be lost.
    """
    modules = svi.pair.modules
    owned = {p for module in modules for p in module.parameters()}
    lost = [
        tuple(p.shape)
        for group in svi.optim.param_groups
        for p in group["params"]
        if p not in owned
    ]
    if lost:
        raise ValueError(
            "expected model and guide to be modules, or methods of modules, that own every parameter of the optimiser, "
            f"got others of shapes {lost}: a checkpoint would lose them"
        )
    return {
        "modules": [module.state_dict() for module in modules],
        "optimiser": svi.optim.state_dict(),
        "optimiser_type": type(svi.optim).__name__,
        "num_steps": svi.num_steps,
    }


def restore_svi(svi: SVI, state: State, path: Path) -> None:
    """Set an ``SVI`` to a state of :func:`svi_state`, which came from ``path``; ``ValueError`` where it is of another make."""
    check_keys(state, {"modules", "optimiser", "optimiser_type", "num_steps"}, path)
    check_equal("optimiser", state["optimiser_type"], type(svi.optim).__name__, path)
    restore_modules(svi.pair.modules, state, path)
    svi.optim.load_state_dict(state["optimiser"])
    svi.num_steps = state["num_steps"]


def restore_modules(modules: list[nn.Module], state: State, path: Path) -> None:
    """Set weights and buffers to those of a checkpoint; ``ValueError`` where it is not one of these modules."""
    check_keys(state, {"modules"}, path)
    check_equal("modules behind model and guide", len(state["modules"]), len(modules), path)
    for module, values in zip(modules, state["modules"], strict=True):
        try:
            module.load_state_dict(values)
        except RuntimeError as error:
            raise ValueError(
                f"expected the {type(module).__name__} that {path} was saved from, got another: {error}"
            ) from error


def check_keys(state: State, expected: set[str], path: Path) -> None:
    """Raise ``ValueError`` unless a checkpoint has all the expected entries."""
    if missing := sorted(expected - state.keys()):
        raise ValueError(f"expected a checkpoint of a run at {path}, got one without {missing}")


def check_equal(what: str, expected: Any, got: Any, path: Path) -> None:
    """Raise ``ValueError`` where a run is resumed with another setting than it was begun with."""
    if expected != got:
        raise ValueError(f"expected {what} {expected} as in {path}, got {got}")
