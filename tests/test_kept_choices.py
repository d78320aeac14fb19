"""Choices of products on disk: another process makes the same graphs."""

import json

import pytest
import torch

from pyro_vae.nets import products, timed
from pyro_vae.programs import kept_choices
from pyro_vae.programs.compiler import compile_graph
from pyro_vae.programs.kept_choices import _path, choices_kept

NAME, OTHER = "graph 128x784 784x400', 2 threads", "graph 400x128' 128x784, 2 threads"


@pytest.fixture(autouse=True)
def file(tmp_path, monkeypatch):
    """A file that nobody has written, and a process without choices."""
    monkeypatch.setattr(kept_choices, "_path", lambda: tmp_path / "choices.json")
    monkeypatch.setattr(timed, "_choices", {})
    return tmp_path / "choices.json"


def new_process():
    timed._choices.clear()


def test_another_process_finds_them(file):
    with choices_kept():
        timed.remember({NAME: "rows"})
    new_process()
    with choices_kept():
        assert timed.choices() == {NAME: "rows"}
    assert list(file.parent.iterdir()) == [file]


def test_choices_of_this_process_stay_and_are_its_own(file):
    """Those of a checkpoint too, which another machine may have made."""
    with choices_kept():
        timed.remember({NAME: "rows"})
    new_process()
    timed.remember({NAME: "torch", "graph of a checkpoint": "torch"})
    with choices_kept():
        timed.remember({OTHER: "onednn", "128x784 784x400', 2 threads": "onednn"})
    assert timed.choices()[NAME] == "torch"
    assert json.loads(file.read_text()) == {NAME: "rows", OTHER: "onednn"}


@pytest.mark.parametrize(
    "text",
    ["{", "[1]", "[" * 100_000, json.dumps({NAME: "mkl", OTHER: ["rows"], "graph": {"a": 1}})],
)
def test_a_file_that_is_no_record_of_choices_is_replaced(file, text):
    file.write_text(text)
    with choices_kept():
        assert not timed.choices()
        timed.remember({NAME: "rows"})
    assert json.loads(file.read_text()) == {NAME: "rows"}


def test_a_file_that_cannot_be_written_costs_nothing_but_time(file, monkeypatch):
    missing = file.parent / "missing" / "choices.json"
    monkeypatch.setattr(kept_choices, "_path", lambda: missing)
    with choices_kept():
        timed.remember({NAME: "rows"})
    assert timed.choices() == {NAME: "rows"}


def test_the_file_lies_beside_the_graphs(tmp_path, monkeypatch):
    """Another processor has a file of its own."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    here = _path()
    monkeypatch.setattr(kept_choices, "processor", lambda: "another")
    assert here.parent == _path().parent == tmp_path
    assert here.name != _path().name


def test_a_compiled_graph_keeps_its_choices(file):
    a, b = torch.ones(128, 784), torch.ones(400, 784)
    compile_graph(lambda a, b: [a @ b.t()], (a, b))
    assert timed.choices() == (json.loads(file.read_text()) if file.exists() else {})
    assert bool(timed.choices()) == products.applies(a)
