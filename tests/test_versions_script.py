"""The script that runs the tests on the oldest and the newest versions, without installing
anything."""

import subprocess
import sys

import pytest
from packaging.requirements import Requirement
from running import script

main = script("test_versions")
module = sys.modules["scripts_test_versions"]


@pytest.fixture
def commands(monkeypatch):
    """The commands that the script would run, without running them; pytest fails where ``status``
    says so."""
    seen, status = [], iter([0, 1])

    def run(command, **options):
        seen.append(command)
        return subprocess.CompletedProcess(command, next(status) if "pytest" in command else 0)

    monkeypatch.setattr(module.subprocess, "run", run)
    monkeypatch.setattr(module.Path, "glob", lambda self, pattern: iter([self / "bin" / "python"]))
    return seen


def test_every_requirement_has_one_lower_bound():
    pins = [module.oldest(requirement) for requirement in module.requirements()]
    assert {"torch", "pyro-ppl", "pytest"} <= {pin.split("==")[0] for pin in pins}


@pytest.mark.parametrize("requirement", ["numpy", "numpy<3", "numpy>=2,>=2.1"])
def test_a_requirement_without_one_lower_bound_is_refused(requirement):
    with pytest.raises(
        ValueError, match=r"expected one lower bound, such as numpy>=2\.0, got numpy"
    ):
        module.oldest(Requirement(requirement))


def test_lower_bounds_become_pins():
    assert module.oldest(Requirement("numpy>=2.0,<3")) == "numpy==2.0"


def test_oldest_installs_the_pins_and_hands_options_to_pytest(commands):
    main("--oldest", "--", "-n", 1, "-k", "compiled")
    (install,) = [command for command in commands if "install" in command]
    assert {module.oldest(requirement) for requirement in module.requirements()} <= set(install)
    assert [command[-4:] for command in commands if "pytest" in command] == [
        ["-n", "1", "-k", "compiled"]
    ]


def test_newest_installs_no_pins(commands):
    main("--newest")
    (install,) = [command for command in commands if "install" in command]
    assert install[-2:] == ["-e", ".[test]"]


def test_both_by_default_and_a_failure_is_named(commands):
    with pytest.raises(SystemExit, match="the tests fail on the newest versions"):
        main()
    assert sum("pytest" in command for command in commands) == 2
