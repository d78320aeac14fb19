"""Checkpoints: written whole or not at all, checked when read, never executed."""

import os
import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

from pyro_vae import SVI, VAE, Bernoulli, DiagonalNormal, StandardNormal, Trace_ELBO, mlp
from pyro_vae.nets import timed
from pyro_vae.training.checkpoint import (
    LAST,
    PREVIOUS,
    latest,
    load_checkpoint,
    load_latest,
    load_weights,
    restore_svi,
    save_checkpoint,
    svi_state,
)

STATE = {
    "epoch": 3,
    "history": [{"loss": 0.1, "kl": None}],
    "weights": {"w": torch.arange(6.0), "b": torch.tensor([1, 2])},
}


class Bomb:
    """Unpickling it creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def equal(a, b) -> bool:
    """Whether two states are the same, bit for bit."""
    if isinstance(a, dict):
        return (
            isinstance(b, dict) and a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
        )
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(equal, a, b))
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    return type(a) is type(b) and (a == b or (a != a and b != b))


@pytest.fixture
def saved(tmp_path):
    save_checkpoint(tmp_path / "state.pt", STATE)
    return tmp_path / "state.pt"


def test_what_is_saved_is_loaded(saved):
    assert equal(load_checkpoint(saved), STATE)
    assert [*saved.parent.iterdir()] == [saved]


def is_refused(path: Path) -> bool:
    """Whether a damaged file is refused by name; if it is loaded, it must be the state."""
    try:
        state = load_checkpoint(path)
    except ValueError as error:
        return str(path) in str(error)
    assert equal(state, STATE)
    return False


def test_a_damaged_byte_is_refused_or_harmless(saved):
    content, refused = saved.read_bytes(), 0
    places = range(0, len(content), 3)
    for i in places:
        saved.write_bytes(content[:i] + bytes([content[i] ^ 0xFF]) + content[i + 1 :])
        refused += is_refused(saved)
    assert refused > len(places) / 4  # the others lie in padding, time stamps and the like


def test_a_truncated_file_is_refused(saved):
    content = saved.read_bytes()
    for length in (*range(0, len(content), 17), *range(len(content) - 70, len(content))):
        saved.write_bytes(content[:length])
        assert is_refused(saved)


FOREIGN = {
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("epoch,loss\n1,0.5\n"),
    "zeros": lambda path: path.write_bytes(bytes(4096)),
    "list": lambda path: torch.save([1, 2], path),
    "module": lambda path: torch.save(nn.Linear(1, 1), path),
    "legacy": lambda path: torch.save(STATE, path, _use_new_zipfile_serialization=False),
    "pickle with code": lambda path: path.write_bytes(
        pickle.dumps({"state": Bomb(path.with_name("executed"))})
    ),
    "checkpoint with code": lambda path: torch.save(
        {"state": Bomb(path.with_name("executed"))}, path
    ),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_foreign_file_is_refused_and_not_executed(tmp_path, name):
    path = tmp_path / "state.pt"
    FOREIGN[name](path)
    with pytest.raises(ValueError, match=f"expected a checkpoint .* at {path}"):
        load_checkpoint(path)
    assert [*tmp_path.iterdir()] == [path]


def test_the_bomb_works(tmp_path):
    pickle.loads(pickle.dumps(Bomb(tmp_path / "executed")))
    assert (tmp_path / "executed").exists()


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pt"):
        load_checkpoint(tmp_path / "nowhere.pt")


@pytest.mark.parametrize("where", ["fsync", "replace"])
def test_a_failed_save_raises_and_leaves_the_previous_one(saved, monkeypatch, where):
    def fail(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, where, fail)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(saved, {"epoch": 4})
    assert equal(load_checkpoint(saved), STATE)
    assert [*saved.parent.iterdir()] == [saved]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_raises_and_leaves_the_previous_one(saved):
    (saved.parent / ".state.pt.tmp").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(saved, {"epoch": 4, "weights": torch.zeros(100_000)})
    assert equal(load_checkpoint(saved), STATE)


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        save_checkpoint(tmp_path / "nowhere" / "state.pt", STATE)


def test_the_one_before_is_kept(tmp_path):
    last, previous = tmp_path / LAST, tmp_path / PREVIOUS
    assert latest(tmp_path) is None
    for epoch in range(3):
        save_checkpoint(last, {"epoch": epoch}, previous=previous)
    assert (load_checkpoint(last), load_checkpoint(previous)) == ({"epoch": 2}, {"epoch": 1})
    assert latest(tmp_path) == last
    last.write_bytes(last.read_bytes()[:-100])
    with pytest.raises(ValueError, match=rf"{last}, .*; delete it to resume from {previous}"):
        load_latest(last)
    last.unlink()
    assert latest(tmp_path) == previous
    assert load_latest(previous) == {"epoch": 1}


def vae(hidden: int = 4) -> VAE:
    encoder = nn.Sequential(nn.BatchNorm1d(6), mlp(6, hidden, 4))
    return VAE(StandardNormal(2), Bernoulli(mlp(2, hidden, 6)), DiagonalNormal(encoder))


def svi_of(vae: VAE) -> SVI:
    return SVI(vae.model, vae.guide, torch.optim.Adam(vae.parameters()), Trace_ELBO())


def test_weights_and_buffers_are_loaded(tmp_path):
    trained, other = vae(), vae()
    svi = svi_of(trained)
    svi.step(torch.rand(5, 6).round())
    save_checkpoint(tmp_path / LAST, svi_state(svi))
    assert not equal(dict(trained.state_dict()), dict(other.state_dict()))
    state = load_weights(tmp_path / LAST, other.model, other.guide)
    assert equal(dict(trained.state_dict()), dict(other.state_dict()))
    assert state["num_steps"] == 1


OTHERS = {
    "sizes": (lambda: (vae(5).model,), "size mismatch"),
    "number": (
        lambda: (vae().model, vae().guide),
        "expected modules behind model and guide 1 .* got 2",
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_weights_of_another_make_are_refused(tmp_path, name):
    programs, message = OTHERS[name]
    save_checkpoint(tmp_path / LAST, svi_state(svi_of(vae())))
    with pytest.raises(ValueError, match=message):
        load_weights(tmp_path / LAST, *programs())
    save_checkpoint(tmp_path / LAST, {"weights": torch.zeros(3)})
    with pytest.raises(ValueError, match="without \\['modules'\\]"):
        load_weights(tmp_path / LAST, *programs())


def test_parameters_that_would_be_lost_are_refused():
    pair, free = vae(), torch.nn.Parameter(torch.zeros(3))
    parameters = [*pair.parameters(), free]
    svi = SVI(pair.model, pair.guide, torch.optim.Adam(parameters), Trace_ELBO())
    with pytest.raises(ValueError, match="a checkpoint would lose them"):
        svi_state(svi)


def test_modules_behind_plain_functions_are_saved():
    pair = vae()
    adam = torch.optim.Adam(pair.parameters())
    svi = SVI(lambda x: pair.model(x), lambda x: pair.guide(x), adam, Trace_ELBO())
    (saved,) = svi_state(svi)["modules"]
    assert saved.keys() == pair.state_dict().keys()


def test_the_choices_of_products_are_restored(tmp_path, monkeypatch):
    """Libraries differ in rounding: a resumed run takes those of the run that it continues."""
    made = {"layer 128x784x400, 2 threads": "onednn"}
    monkeypatch.setattr(timed, "_choices", dict(made))
    save_checkpoint(tmp_path / LAST, svi_state(svi_of(vae())))
    timed._choices.clear()
    svi, path = svi_of(vae()), tmp_path / LAST
    restore_svi(svi, load_checkpoint(path), path)
    assert timed.choices() == made
