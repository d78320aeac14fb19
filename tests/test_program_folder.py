"""The run folders of ``scripts/programs``."""

import json
from dataclasses import dataclass

import pytest

from pyro_vae.experiments.programs import ProgramOptions, program


@dataclass(frozen=True)
class Options(ProgramOptions):
    labels: int = 3


def run(path, *args):
    with program(Options, ["--output-dir", str(path), *args], "test") as (options, folder):
        folder.write({"labels": options.labels, "nothing": float("nan"), "table": [1.0]})


def test_writes_options_machine_and_result(tmp_path, capsys):
    run(tmp_path / "run", "--labels", "7")
    options = json.loads((tmp_path / "run" / "config.json").read_text())
    about = json.loads((tmp_path / "run" / "about.json").read_text())
    assert options["labels"] == 7
    assert about["sessions"][0]["machine"]["processor"]
    assert json.loads((tmp_path / "run" / "result.json").read_text())["nothing"] is None
    assert "labels" in capsys.readouterr().out


def test_refuses_a_folder_of_other_options_and_goes_on_with_the_same(tmp_path, capsys):
    run(tmp_path / "run")
    run(tmp_path / "run", "--epochs", "5")
    assert len(json.loads((tmp_path / "run" / "about.json").read_text())["sessions"]) == 2
    with pytest.raises(SystemExit, match="2"):
        run(tmp_path / "run", "--labels", "4")
    assert "labels = 3, got labels = 4" in capsys.readouterr().err
