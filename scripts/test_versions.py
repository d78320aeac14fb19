"""Run the tests on the oldest and on the newest versions that pyproject.toml allows.

Each set gets a fresh virtual environment, several GB, which is deleted afterwards. The oldest set
is made of the lower bounds in pyproject.toml themselves, so the two cannot drift apart. What
follows ``--`` goes to pytest: ``python scripts/test_versions.py --oldest -- -n 1 -k compiled``.
"""

import argparse
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent


def requirements() -> list[Requirement]:
    """What pyproject.toml asks for, to run the package and its tests."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    texts = [*project["dependencies"], *project["optional-dependencies"]["test"]]
    return [Requirement(text) for text in texts]


def oldest(requirement: Requirement) -> str:
    """Pin a requirement to its lower bound: ``numpy>=2.0`` becomes ``numpy==2.0``.

    Raises ``ValueError`` where it has no lower bound, or several.
    """
    bounds = [bound.version for bound in requirement.specifier if bound.operator == ">="]
    if len(bounds) != 1:
        raise ValueError(f"expected one lower bound, such as numpy>=2.0, got {requirement}")
    return f"{requirement.name}=={bounds[0]}"


def run_tests(pins: Sequence[str], pytest_args: Sequence[str]) -> int:
    """Install the pins and the package in a fresh environment; return pytest's exit status there.

    Raises ``subprocess.CalledProcessError`` where the installation fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        python = str(next(Path(folder).glob("[bS]*/python*")))  # bin/, on Windows Scripts/
        pip = [python, "-m", "pip", "--disable-pip-version-check"]
        subprocess.run([*pip, "install", "--quiet", "-e", ".[test]", *pins], cwd=ROOT, check=True)
        subprocess.run([*pip, "list", "--format", "freeze"], cwd=ROOT, check=True)
        return subprocess.run([python, "-m", "pytest", *pytest_args], cwd=ROOT).returncode


def main(args: Sequence[str] | None = None) -> None:
    """Run the sets asked for, by default both; exit with status 1 where the tests fail on one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--oldest", action="store_true", help="the lower bounds in pyproject.toml")
    parser.add_argument("--newest", action="store_true", help="the newest versions there are")
    parser.add_argument(
        "pytest_args", nargs="*", metavar="-- PYTEST_ARGS", help="options for pytest"
    )
    options = parser.parse_args(args)
    both = options.oldest == options.newest
    failed = []
    for name, wanted in (("oldest", options.oldest or both), ("newest", options.newest or both)):
        if wanted:
            print(f"{name} versions:", flush=True)
            pins = [oldest(r) for r in requirements()] if name == "oldest" else []
            if run_tests(pins, options.pytest_args):
                failed.append(name)
    if failed:
        raise SystemExit(f"error: the tests fail on the {' and the '.join(failed)} versions")


if __name__ == "__main__":
    main()
