"""The files of golden values, and how a version is compared with them.

A file maps the name of an entry to its ``values``, to the ``distribution`` of its random number
over ``SEEDS`` (mean and standard deviation), and to ``redrawn``: whether the values were renewed
after a change of the order of random draws. Then the distribution is still that of the first
version, and the statistical check stands in for the comparison with it.
"""

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from .entries import ENTRIES, Value

FOLDER = Path(__file__).parent
SEEDS, FRESH_SEEDS = range(100), range(1000, 1040)
RELATIVE, ABSOLUTE = 1e-7, 1e-10


def load(file: str) -> dict[str, Any]:
    """The entries of a file by name; none where there is no file yet."""
    path = FOLDER / f"{file}.json"
    return json.loads(path.read_text()) if path.exists() else {}


def save(file: str, stored: dict[str, Any]) -> None:
    """Write a file, one entry on each line and in the order of ``ENTRIES``."""
    names = [name for name in ENTRIES if name in stored]
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(stored[name])}" for name in names)
    (FOLDER / f"{file}.json").write_text(f"{{\n{lines}\n}}\n")


def rounded(value: Any) -> Any:
    """The same JSON with 12 significant digits."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return float(f"{value:.12g}") if isinstance(value, float) else value


def differences(expected: Any, got: Any, at: str = "values") -> list[str]:
    """Where two JSON values differ, numbers by more than 1e-7 relative (1e-10 absolute)."""
    if isinstance(expected, dict) and isinstance(got, dict) and expected.keys() == got.keys():
        pairs = [(f"{at}[{key!r}]", expected[key], got[key]) for key in expected]
    elif isinstance(expected, list) and isinstance(got, list) and len(expected) == len(got):
        pairs = [(f"{at}[{i}]", *pair) for i, pair in enumerate(zip(expected, got, strict=True))]
    else:
        return [] if _close(expected, got) else [f"{at}: expected {expected}, got {got}"]
    return [line for place, a, b in pairs for line in differences(a, b, place)]


def _close(expected: Any, got: Any) -> bool:
    if not isinstance(expected, int | float) or not isinstance(got, int | float):
        return expected == got
    if math.isnan(expected) or math.isnan(got):
        return math.isnan(expected) and math.isnan(got)
    return math.isclose(expected, got, rel_tol=RELATIVE, abs_tol=ABSOLUTE)


def is_refusal(values: Value) -> bool:
    return "refused" in values


def distribution(name: str, seeds: Iterable[int] = SEEDS) -> dict[str, float]:
    """Mean and standard deviation of an entry's random number over some seeds."""
    statistic = ENTRIES[name].statistic()
    draws = torch.tensor([statistic(seed) for seed in seeds], dtype=torch.float64)
    return {"mean": float(draws.mean()), "std": float(draws.std()), "seeds": len(draws)}


def standard_errors(expected: dict[str, float], got: dict[str, float]) -> float:
    """How many standard errors of their difference two means are apart."""
    variance = sum(each["std"] ** 2 / each["seeds"] for each in (expected, got))
    return abs(got["mean"] - expected["mean"]) / math.sqrt(variance)


def same_in_distribution(name: str, seeds: Iterable[int] = FRESH_SEEDS) -> bool:
    """Whether an entry's mean over new seeds is within 3 standard errors of the stored one."""
    stored = load(ENTRIES[name].file)[name]["distribution"]
    return standard_errors(stored, distribution(name, seeds)) < 3
