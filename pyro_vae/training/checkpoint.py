"""Checkpoints: written completely or not at all, checked when read, never executed."""

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
from ..nets.timed import choices, remember
from ..programs.modules import modules_of
from ..programs.sites import Program

LAST = "last.pt"
PREVIOUS = "previous.pt"
BEST = "best.pt"

State = dict[str, Any]


@contextmanager
def replacing(path: Path, previous: Path | None = None) -> Iterator[BinaryIO]:
    """Write a file that replaces ``path`` when it is complete and on the disk, not before.

    With ``previous`` the file that was at ``path`` is moved there first. A process that is killed
    between the two moves leaves it there, and nothing at ``path``.
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
    """Save tensors, numbers, strings, and lists, tuples and dictionaries of them.

    Raises ``OSError`` where the file cannot be written. The file that was at ``path`` is then
    still complete, there or at ``previous``; see :func:`replacing`.
    """
    with replacing(path, previous) as file:
        torch.save(state, file)


def load_checkpoint(path: Path, map_location: str | torch.device = "cpu") -> State:
    """Load what :func:`save_checkpoint` saved, after a check of its checksums.

    Code in the file is not executed. Raises ``FileNotFoundError`` where there is no file,
    ``ValueError`` where it is corrupt, truncated or foreign.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "numbers.pt"
    >>> save_checkpoint(path, {"epoch": 3})
    >>> load_checkpoint(path)
    {'epoch': 3}
    """
    with path.open("rb") as file:
        try:
            state = torch.load(_checked(file), map_location, weights_only=True)
        except Exception as error:  # zipfile and torch raise many kinds for damaged files
            raise ValueError(
                f"{_EXPECTED} at {path}, got a corrupt, truncated or foreign file"
            ) from error
    if not isinstance(state, dict):
        raise ValueError(f"{_EXPECTED} at {path}, got a {type(state).__name__}")
    return state


def _checked(file: BinaryIO) -> BinaryIO:
    """Copy a zip archive member by member, and check the checksum of each.

    Torch does not read the file itself, because it finds the members by other fields of their
    headers, which no checksum covers.
    """
    copy = io.BytesIO()
    with zipfile.ZipFile(file) as source, zipfile.ZipFile(copy, "w") as target:
        for member in source.infolist():
            target.writestr(member.filename, source.read(member))
    copy.seek(0)
    return copy


_EXPECTED = "expected a checkpoint written by save_checkpoint"


def latest(folder: Path) -> Path | None:
    """Return the checkpoint to resume from: ``last.pt``, else ``previous.pt``, else ``None``."""
    return next((folder / name for name in (LAST, PREVIOUS) if (folder / name).exists()), None)


def load_latest(path: Path) -> State:
    """Load the checkpoint to resume from.

    Raises ``ValueError`` as :func:`load_checkpoint` does, and says what to do.
    """
    try:
        return load_checkpoint(path)
    except ValueError as error:
        previous = path.with_name(PREVIOUS)
        if path == previous or not previous.exists():
            raise
        raise ValueError(f"{error}; delete it to resume from {previous}") from error


def load_weights(path: Path, *programs: Program) -> State:
    """Load weights and buffers of the programs' modules from a checkpoint of a run; return it.

    Raises ``ValueError`` where the checkpoint belongs to other modules.
    """
    state = load_checkpoint(path)
    restore_modules(modules_of(*programs), state, path)
    return state


def svi_state(svi: SVI) -> State:
    """The state of an ``SVI``: weights and buffers, the optimiser's state, the number of steps.

    It also holds the ways that were chosen for products and densities: their rounding differs.

    Raises ``ValueError`` where the optimiser holds parameters that belong to no module of model
    or guide, because they would be lost.
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
            "expected model and guide to be modules, or methods of modules, that own every "
            f"parameter of the optimiser, got others of shapes {lost}: a checkpoint would lose them"
        )
    return {
        "modules": [module.state_dict() for module in modules],
        "optimiser": svi.optim.state_dict(),
        "optimiser_type": type(svi.optim).__name__,
        "num_steps": svi.num_steps,
        "products": choices(),
    }


def restore_svi(svi: SVI, state: State, path: Path) -> None:
    """Set an ``SVI`` to a state of :func:`svi_state` that was loaded from ``path``.

    Raises ``ValueError`` where the state belongs to other modules or another optimiser.
    """
    check_keys(state, {"modules", "optimiser", "optimiser_type", "num_steps"}, path)
    check_equal("optimiser", state["optimiser_type"], type(svi.optim).__name__, path)
    restore_modules(svi.pair.modules, state, path)
    svi.optim.load_state_dict(state["optimiser"])
    svi.num_steps = state["num_steps"]
    remember(state.get("products", {}))


def restore_modules(modules: list[nn.Module], state: State, path: Path) -> None:
    """Set weights and buffers to those of a checkpoint.

    Raises ``ValueError`` where the checkpoint belongs to other modules.
    """
    check_keys(state, {"modules"}, path)
    check_equal("modules behind model and guide", len(state["modules"]), len(modules), path)
    for module, values in zip(modules, state["modules"], strict=True):
        try:
            module.load_state_dict(values)
        except RuntimeError as error:
            raise ValueError(
                f"expected the {type(module).__name__} that {path} was saved from, "
                f"got another: {error}"
            ) from error


def check_keys(state: State, expected: set[str], path: Path) -> None:
    """Raise ``ValueError`` unless a checkpoint has all the expected entries."""
    if missing := sorted(expected - state.keys()):
        raise ValueError(f"expected a checkpoint of a run at {path}, got one without {missing}")


def check_equal(what: str, expected: Any, got: Any, path: Path) -> None:
    """Raise ``ValueError`` where a run is resumed with another setting than it was started with."""
    if expected != got:
        raise ValueError(f"expected {what} {expected} as in {path}, got {got}")
