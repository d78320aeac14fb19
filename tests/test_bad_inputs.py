"""What is written wrong, and the sentence that says so: see tests/bad_inputs."""

import json
import shutil
from pathlib import Path

import pytest
from bad_inputs.setting import setting, write_files
from bad_inputs.table import CALLS, COMMANDS, DOCUMENT, document, matches
from running import TINY, script

from pyro_vae.experiments.storage import load_config, save_json

PAIRS = """
import torch
from pyro_vae import VAE, Bernoulli, DiagonalNormal, StandardNormal, mlp

vae = VAE(StandardNormal(2), Bernoulli(mlp(2, 4, 6)), DiagonalNormal(mlp(6, 4, 4)))
number = 3

def no_data():
    return vae.model, vae.guide

def no_tensor():
    return vae.model, vae.guide, 3

def no_programs():
    return 1, 2, torch.ones(3, 6)

def nothing():
    pass
"""

RUN = "RUN"
"""The folder of a finished run of three epochs."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A finished run, copies of it with other configurations, and files beside them."""
    folder = tmp_path_factory.mktemp("inputs")
    run = folder / RUN
    script("train")(*TINY, "--epochs", 3, "--output-dir", run)
    script("evaluate")(run, "--num-samples", 5, "--no-progress")
    changes = {
        "edited": {"lr": 0.5},
        "many": {"batch_size": "many"},
        "text": {"hidden": ["a"]},
        "grey": {"dataset": "mnist", "pixels": "grey"},
    }
    for name, change in changes.items():
        shutil.copytree(run, folder / name)
        path = folder / name / "config.json"
        save_json({**json.loads(path.read_text()), **change}, path)
    write_files(folder)
    (folder / "old.png").write_bytes(b"old")
    (folder / "pairs.py").write_text(PAIRS)
    return folder


@pytest.mark.parametrize(
    ("name", "case", "args", "sentence"), COMMANDS, ids=[f"{row[0]}: {row[1]}" for row in COMMANDS]
)
def test_scripts_refuse_in_one_sentence(name, case, args, sentence, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    before = files(folder)
    config = load_config(folder / RUN / "config.json")
    given = [*TINY, "--epochs", 1] if name == "train" and "--resume" not in args else []
    with pytest.raises(SystemExit) as exit_:
        script(name)(*given, *args.split())
    shown = capsys.readouterr().err.splitlines()[-1]
    assert exit_.value.code == 2
    assert matches(shown, f"error: {sentence}"), shown
    assert sentence.startswith("expected ")
    assert load_config(folder / RUN / "config.json") == config
    if case == "too large a rate":  # found out while it trains
        shutil.rmtree(folder / "runs")
    assert files(folder) - before <= {"__pycache__"}


def files(folder):
    return {path.name for place in (folder, folder / RUN) for path in place.iterdir()}


@pytest.fixture
def names(tmp_path, monkeypatch):
    """The names that the calls use, in a folder with the files that they use."""
    monkeypatch.chdir(tmp_path)
    write_files(tmp_path)
    return setting()


@pytest.mark.parametrize(("call", "kind", "sentence"), CALLS, ids=[row[0] for row in CALLS])
def test_calls_raise_one_sentence(call, kind, sentence, names):
    with pytest.raises(Exception) as error:  # noqa: PT011 - its type is compared by name
        eval(call, names)
    assert type(error.value).__name__ == kind
    first, *others = str(error.value).splitlines()
    assert matches(first, sentence), first
    assert sentence.startswith("expected ")
    assert not others or others[0].startswith("Trace Shapes:")  # Pyro's, inside a program


def test_the_document_is_up_to_date():
    text = Path(__file__).parents[1].joinpath(DOCUMENT).read_text(encoding="utf-8")
    assert text == document(), "run python -m tests.bad_inputs"


def test_the_tables_are_long_enough():
    assert len({row[0] for row in CALLS}) == len(CALLS) >= 60
    assert len(COMMANDS) >= 60


def test_sentences_are_compared_as_a_whole():
    assert matches("expected a, got b", "expected a, got b")
    assert matches("expected a, got b", "expected ..., got b")
    assert not matches("expected a, got b", "expected a")
    assert not matches("expected a, got b", "expected ., got b")
