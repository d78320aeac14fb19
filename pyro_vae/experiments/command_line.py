"""What the scripts share: the command line as a configuration, and errors of the user as one sentence."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import tyro

from ..programs.graphs import CannotCompile
from .config import Config
from .presets import PRESETS
from .runs import CONFIG, load_config

USER_ERRORS = (ValueError, TypeError, OSError, ImportError, FloatingPointError, CannotCompile)


def parse(args: Sequence[str] | None = None, *, description: str | None = None) -> Config:
    """Read a configuration from the command line: over the defaults, those of ``--preset``, or those of the run to ``--resume``.

    Raises ``ValueError`` for an unknown preset, ``FileNotFoundError`` for a folder to resume that holds no run, and
    ``SystemExit`` (after a message) for options that do not exist.

    >>> parse(["--preset", "r3", "--latent-dim", "8"]).architecture
    'conv'
    """
    args = sys.argv[1:] if args is None else args
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--preset")
    first.add_argument("--resume", type=Path)
    given, _ = first.parse_known_args(args)
    if given.preset is not None and given.preset not in PRESETS:
        raise ValueError(f"expected preset to be one of {', '.join(PRESETS)}, got {given.preset!r}")
    if given.preset is not None:
        default = PRESETS[given.preset]
    else:
        default = (
            Config()
            if given.resume is None
            else replace(load_config(given.resume / CONFIG), resume=given.resume)
        )
    return tyro.cli(Config, args=args, default=default, description=description)


@contextmanager
def user_errors() -> Iterator[None]:
    """Turn what a user can mend into one sentence on stderr and exit status 2; other errors keep their traceback."""
    try:
        yield
    except USER_ERRORS as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(130) from None
