"""The command line as a configuration, and errors of the user as one sentence."""

import argparse
import errno
import shlex
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import tyro

from ..programs.compiler import CannotCompile
from .config import (
    GROUPS,
    Config,
    DataOptions,
    ModelOptions,
    ObjectiveOptions,
    RunOptions,
    TrainingOptions,
)
from .presets import PRESETS
from .runs import Run
from .storage import CONFIG, load_config

USER_ERRORS = (ValueError, TypeError, OSError, ImportError, FloatingPointError, CannotCompile)

DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""The system's errors for a disk, a quota or a file that is full."""


@dataclass(frozen=True)
class _Groups:
    """The options of :class:`Config` as ``--help`` shows them."""

    data: DataOptions
    model: ModelOptions
    objective: ObjectiveOptions
    training: TrainingOptions
    run: RunOptions

    @classmethod
    def of(cls, config: Config) -> "_Groups":
        """Cut a configuration into its groups."""
        data, model, objective, training, run = (
            group(**_options(config, group)) for group in GROUPS
        )
        return cls(data, model, objective, training, run)

    def config(self) -> Config:
        """Put the groups together."""
        parts = [getattr(self, group.name) for group in fields(self)]
        return Config(**{name: value for p in parts for name, value in _options(p, p).items()})


def _options(source: Any, group: Any) -> dict[str, Any]:
    return {option.name: getattr(source, option.name) for option in fields(group)}


def parse(args: Sequence[str] | None = None, *, description: str | None = None) -> Config:
    """Read a configuration from the command line.

    It overrides the defaults, or those of ``--preset``, or the options of the run to ``--resume``.

    Raises ``ValueError`` for an unknown preset, or a preset for a resumed run,
    ``FileNotFoundError`` for a folder to resume that holds no run, and ``SystemExit`` (after a
    message) for options that do not exist.

    >>> parse(["--preset", "r3", "--latent-dim", "8"]).architecture
    'conv'
    """
    args = sys.argv[1:] if args is None else args
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--preset")
    first.add_argument("--resume", type=Path)
    given, _ = first.parse_known_args(args)
    groups: _Groups = tyro.cli(
        tyro.conf.OmitArgPrefixes[_Groups],
        args=args,
        default=_Groups.of(_default(given.preset, given.resume)),
        description=description,
    )
    return groups.config()


def _default(preset: str | None, resume: Path | None) -> Config:
    """The options that the command line overrides."""
    if preset is not None and resume is not None:
        raise ValueError(f"expected --resume without --preset, got --preset {preset}")
    if resume is not None:
        return replace(load_config(resume / CONFIG), resume=resume, output_dir=None)
    if preset is None:
        return Config()
    if preset not in PRESETS:
        raise ValueError(f"expected preset to be one of {', '.join(PRESETS)}, got {preset!r}")
    return PRESETS[preset]


@contextmanager
def user_errors() -> Iterator[None]:
    """Turn what a user can mend into one sentence on stderr and exit status 2.

    Ctrl-C gives exit status 130. Other errors keep their traceback.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # as the scripts set it for imports
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    except USER_ERRORS as error:
        _refuse(_full_disk(error) or error)
    except RuntimeError as error:  # torch turns a failed write into one
        full = _full_disk(error)
        if full is None:
            raise
        _refuse(full)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(130) from None


def _refuse(error: BaseException) -> None:
    print(f"error: {error}", file=sys.stderr)
    raise SystemExit(2) from None


def _full_disk(error: BaseException) -> OSError | None:
    """The error of a full disk behind another one."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in DISK:
            return OSError(f"expected space to write to, got {seen}: the files before are whole")
        seen = seen.__cause__ or seen.__context__
    return None


@contextmanager
def resumable(run: Run) -> Iterator[None]:
    """Where a run is interrupted, say how to continue it."""
    try:
        yield
    except KeyboardInterrupt:
        command = [Path(sys.executable).name, sys.argv[0], "--resume", str(run.folder)]
        print(
            f"interrupted after epoch {run.epochs_done} of {run.config.epochs}; continue with\n"
            f"{shlex.join(command)}",
            file=sys.stderr,
        )
        raise SystemExit(130) from None


def new_file(path: Path, overwrite: bool) -> Path:
    """Return a path to write to; raise ``ValueError`` where it exists, unless ``overwrite``."""
    if path.is_dir():
        raise ValueError(f"expected the path of a file to write, got the folder {path}")
    if path.exists() and not overwrite:
        raise ValueError(f"expected a new file, got {path}, which exists: --overwrite replaces it")
    return path
