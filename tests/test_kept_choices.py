"""Choices of products on disk: another process makes the same graphs."""

import json

import pytest
import torch

from pyro_vae.nets import products
from pyro_vae.programs import kept_choices
from pyro_vae.programs.compiler import compile_graph
from pyro_vae.programs.kept_choices import choices_kept

NAME = "graph 128x784 784x400', 2 threads"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A folder of the compiler that nobody has used, and a process without choices."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(products, "_choices", {})
    return tmp_path / "cache"


def new_process():
    products._choices.clear()


def test_another_process_finds_them():
    with choices_kept():
        products.remember({NAME: "rows"})
    new_process()
    with choices_kept():
        assert products.choices() == {NAME: "rows"}
    assert not [path for path in kept_choices._path().parent.iterdir() if path.suffix != ".json"]


def test_choices_of_this_process_stay():
    """Those of a checkpoint too; the file keeps what it has, and gains what is new."""
    with choices_kept():
        products.remember({NAME: "rows"})
    new_process()
    products.remember({NAME: "torch"})
    with choices_kept():
        products.remember({"other": "onednn"})
    assert products.choices() == {NAME: "torch", "other": "onednn"}
    assert json.loads(kept_choices._path().read_text()) == {NAME: "rows", "other": "onednn"}


@pytest.mark.parametrize("text", ["{", "[1]", json.dumps({NAME: "mkl", "other": ["rows"]})])
def test_a_file_that_is_no_record_of_choices_is_replaced(text):
    kept_choices._path().write_text(text)
    with choices_kept():
        assert not products.choices()
        products.remember({NAME: "rows"})
    assert json.loads(kept_choices._path().read_text()) == {NAME: "rows"}


def test_a_full_disk_costs_nothing_but_time(monkeypatch):
    def full(self, text):
        raise OSError("No space left on device")

    monkeypatch.setattr(kept_choices.Path, "write_text", full)
    with choices_kept():
        products.remember({NAME: "rows"})
    assert products.choices() == {NAME: "rows"}


def test_a_compiled_graph_keeps_its_choices():
    a, b = torch.ones(128, 784), torch.ones(400, 784)
    compile_graph(lambda a, b: [a @ b.t()], (a, b))
    kept = kept_choices._path()
    assert products.choices() == (json.loads(kept.read_text()) if kept.exists() else {})
    assert bool(products.choices()) == products.applies(a)
