"""The files of a run's folder that are text: configuration, results, and about what they are."""

import json
import math
from collections.abc import Mapping, Set
from dataclasses import asdict, fields, replace
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import torch

from ..data.sources import NAMES
from ..training.checkpoint import LAST, load_checkpoint, replacing
from ..training.metrics import Record
from .config import Config
from .environment import session

CONFIG = "config.json"
RESULT = "result.json"
ABOUT = "about.json"
FIGURES = "figures"

MAY_DIFFER = {
    "preset",
    "epochs",
    "device",
    "data_dir",
    "download",
    "num_samples",
    "progress",
    "tensorboard",
    "output_dir",
    "resume",
}
"""The options in which a resumed run may differ from the one it continues."""


def save_json(values: Mapping[str, Any], path: Path) -> None:
    """Write numbers and names as JSON; what is not finite becomes null, for JSON has no NaN."""
    text = json.dumps(as_json(values), indent=2, allow_nan=False)
    with replacing(path) as file:
        file.write(f"{text}\n".encode())


def as_json(value: Any) -> Any:
    """A value as it comes back from JSON: lists for tuples, text for paths, null for NaN."""
    if isinstance(value, Mapping):
        return {name: as_json(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(inner) for inner in value]
    if isinstance(value, Path):
        return str(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value


def load_json(path: Path) -> dict[str, Any]:
    """Read an object of JSON; raise ``ValueError`` where the file holds something else."""
    try:
        values = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"expected JSON in {path}, got {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"expected an object of JSON in {path}, got {type(values).__name__}")
    return values


def save_config(config: Config, path: Path) -> None:
    """Write a configuration as JSON."""
    save_json(asdict(config), path)


def load_config(path: Path) -> Config:
    """Read what :func:`save_config` wrote; options that the file lacks have their defaults.

    Raises ``FileNotFoundError`` where there is no file, ``ValueError`` where it is no
    configuration, has unknown options, or a value of another type.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"expected the folder of a run, which has a {CONFIG}, got {path.parent}"
        )
    values = load_json(path)
    hints = get_type_hints(Config)
    if unknown := sorted(values.keys() - hints.keys()):
        raise ValueError(f"expected the options of a run in {path}, got {unknown}")
    options = {}
    for name, value in values.items():
        try:
            options[name] = _decode(hints[name], value)
        except TypeError as error:
            raise ValueError(f"expected {name} in {path} to be {error}, got {value!r}") from None
    return Config(**options)


def _decode(hint: Any, value: Any) -> Any:
    """A value of JSON as an option's own type; ``TypeError`` names the type it should have."""
    if get_origin(hint) in (UnionType, Union):
        return _decode_union(get_args(hint), value)
    if get_origin(hint) is tuple:
        return _decode_tuple(get_args(hint), value)
    if hint is float and type(value) is int:
        return float(value)
    if hint is Path and isinstance(value, str):
        return Path(value)
    if type(value) is not hint:
        raise TypeError({Path: "a path", NoneType: "null"}.get(hint, f"of type {hint.__name__}"))
    return value


def _decode_union(hints: tuple[Any, ...], value: Any) -> Any:
    wanted = []
    for hint in hints:
        try:
            return _decode(hint, value)
        except TypeError as error:
            wanted.append(str(error))
    raise TypeError(" or ".join(wanted))


def _decode_tuple(hints: tuple[Any, ...], value: Any) -> tuple[Any, ...]:
    inner = hints[0]
    length = None if hints[-1] is Ellipsis else len(hints)
    wanted = f"a list of {'' if length is None else f'{length} '}{inner.__name__} values"
    if not isinstance(value, list) or length not in (None, len(value)):
        raise TypeError(wanted)
    try:
        return tuple(_decode(inner, item) for item in value)
    except TypeError:
        raise TypeError(wanted) from None


def with_absolute_paths(config: Config) -> Config:
    """Return a configuration that means the same in every working directory.

    >>> with_absolute_paths(Config(dataset="digits")).dataset
    'digits'
    """
    if config.dataset in NAMES:
        root = config.data_dir
        if root is None and config.dataset != "digits":
            root = Path("data")
        return replace(config, data_dir=None if root is None else _absolute(root))
    if not Path(config.dataset).expanduser().exists():
        return config  # load_data says what is wrong, in the user's own words
    return replace(config, dataset=str(_absolute(Path(config.dataset))))


def _absolute(path: Path) -> Path:
    return path.expanduser().resolve()


def check_resumable(config: Config, begun: Config) -> None:
    """Raise ``ValueError`` where a configuration differs from that of the run it resumes."""
    strict = {field.name for field in fields(Config)} - MAY_DIFFER
    if config.lr_schedule == "cosine":  # its whole course depends on where it ends
        strict.add("epochs")
    expected = "the options of the run that is resumed"
    check_same(asdict(config), asdict(begun), strict, expected)


def check_unedited(config: Config, folder: Path) -> None:
    """Raise ``ValueError`` where ``config.json`` was edited by hand: training would ignore that.

    Folders of earlier versions do not say what was written: there nothing is checked.
    """
    if not (folder / ABOUT).is_file():
        return
    written = load_json(folder / ABOUT).get("options", {})
    hints = get_type_hints(Config)
    names = (hints.keys() & written.keys()) - MAY_DIFFER
    begun = replace(config, **{name: _decode(hints[name], written[name]) for name in names})
    expected = f"the options in {folder / CONFIG} as the run was begun with (begin a new run)"
    check_same(asdict(config), asdict(begun), names, expected)


def check_same(
    options: Mapping[str, Any], begun: Mapping[str, Any], names: Set[str], expected: str
) -> None:
    """Raise ``ValueError`` where options differ from those that a run was begun with."""
    different = [name for name in options if name in names and options[name] != begun.get(name)]
    if different:
        was = ", ".join(f"{name} = {begun.get(name)!r}" for name in different)
        got = ", ".join(f"{name} = {options[name]!r}" for name in different)
        raise ValueError(f"expected {expected}, {was}, got {got}")


def sessions(folder: Path, device: torch.device) -> list[Any]:
    """What a run's folder says of the processes so far, and this process."""
    path = folder / ABOUT
    before = load_json(path).get("sessions", []) if path.is_file() else []
    return [*before, session(device)]


def history(folder: Path) -> list[Record]:
    """The records of a run's epochs so far.

    Raises ``FileNotFoundError`` where the folder holds no run.
    """
    return [Record(**record) for record in load_checkpoint(folder / LAST)["history"]]
