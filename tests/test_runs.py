"""Run folders: what they state, how runs are interrupted, resumed, moved, and loaded."""

import errno
import json
import os
import shutil
import subprocess
import sys
import types
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from running import TINY, script
from torch.utils import cpp_extension

from pyro_vae.experiments import results, runs
from pyro_vae.experiments.command_line import parse, user_errors
from pyro_vae.experiments.config import Config
from pyro_vae.experiments.results import sentence
from pyro_vae.experiments.runs import load_run, open_run
from pyro_vae.experiments.storage import history, load_config, save_json, with_absolute_paths

train, evaluate = script("train"), script("evaluate")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    train(*TINY, "--epochs", 3, "--output-dir", folder)
    return folder


@pytest.fixture
def copy(run, tmp_path):
    return Path(shutil.copytree(run, tmp_path / "copy"))


def test_a_run_states_what_it_depends_on(run):
    about = json.loads((run / "about.json").read_text())
    assert about["chosen"] == {
        "pixels": "counts",
        "likelihood": "binomial",
        "images": {"train": 60, "validation": 60, "test": 60},
    }
    (session,) = about["sessions"]
    assert session["versions"]["torch"] == torch.__version__
    assert session["machine"]["threads"] == torch.get_num_threads()
    assert session["machine"]["processor"]
    assert about["options"]["hidden"] == [16]


def test_a_resumed_run_states_each_session(copy):
    train("--resume", copy, "--epochs", 4)
    about = json.loads((copy / "about.json").read_text())
    assert len(about["sessions"]) == 2
    assert about["options"]["epochs"] == 4


def test_what_was_chosen_is_printed(tmp_path, capsys):
    train(*TINY[:-3], "--no-progress", "--epochs", 1, "--output-dir", tmp_path / "run")
    _, images, chosen, *headings = capsys.readouterr().out.splitlines()
    assert images == "images: 60 to train, 60 to validate, 60 to test"
    assert chosen.startswith("chosen by default: pixels counts, likelihood binomial, device ")
    assert headings[0].split() == ["train", *["validation"] * 4, "train"]
    assert " ".join(headings[1].split()) == (
        "epoch ELBO ELBO log-likelihood rate (KL) active units seconds"
    )


def test_an_interrupted_run_says_how_to_continue(tmp_path, monkeypatch, capsys):
    def interrupted(self):
        yield from list(fit(self))[:1]
        raise KeyboardInterrupt

    fit = runs.Run.fit
    monkeypatch.setattr(runs.Run, "fit", interrupted)
    monkeypatch.setattr(sys, "argv", ["scripts/train.py"])
    with pytest.raises(SystemExit) as exit_:
        train(*TINY, "--epochs", 2, "--output-dir", tmp_path / "run")
    assert exit_.value.code == 130
    said, command = capsys.readouterr().err.splitlines()
    assert said == "interrupted after epoch 2 of 2; continue with"
    assert command.split()[1:] == ["scripts/train.py", "--resume", str(tmp_path / "run")]


def test_resuming_with_nothing_to_do_says_so(copy, capsys):
    judged = (copy / "result.json").stat().st_mtime_ns
    capsys.readouterr()
    train("--resume", copy)
    assert "nothing to train: 3 of 3 epochs are done" in capsys.readouterr().out
    assert (copy / "result.json").stat().st_mtime_ns == judged
    train("--resume", copy, "--num-samples", 7)
    assert json.loads((copy / "result.json").read_text())["num_samples"] == 7


def test_a_moved_run_is_resumed_where_it_is(copy):
    train("--resume", copy, "--epochs", 4)
    assert load_config(copy / "config.json").output_dir == copy
    assert len(history(copy)) == 4


def test_folders_of_the_version_before_resume_and_load(copy):
    """They have no about.json, no option tensorboard, and paths as they were typed."""
    (copy / "about.json").unlink()
    path = copy / "config.json"
    values = json.loads(path.read_text())
    del values["tensorboard"]
    path.write_text(json.dumps({**values, "output_dir": "runs/x", "data_dir": "data"}, indent=2))
    load_run(copy)
    train("--resume", copy, "--epochs", 4)
    assert len(history(copy)) == 4
    evaluate(copy, "--num-samples", 3, "--no-progress")


def test_loaded_models_are_in_eval_mode(run):
    for folder in (run, str(run)):
        _, vae, _ = load_run(folder)
        assert not any(module.training for module in vae.modules())


def test_paths_are_stored_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", np.random.default_rng(0).random((30, 16)))
    train(*TINY, "--dataset", "x.npy", "--epochs", 1, "--output-dir", "run")
    monkeypatch.chdir(tmp_path / "run")
    assert load_config(Path("config.json")).dataset == str(tmp_path / "x.npy")
    assert len(load_run(".")[2].test) == 3
    mnist = with_absolute_paths(Config(dataset="mnist"))
    assert mnist.data_dir == tmp_path / "run" / "data"


def test_a_table_is_no_set_of_images(tmp_path, capsys):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).random((50, 30)))
    train(*TINY, "--dataset", tmp_path / "x.npy", "--epochs", 1, "--output-dir", tmp_path / "run")
    assert "nats per datum (5 data, 10 importance samples" in capsys.readouterr().out


@pytest.mark.parametrize("count", [3, 4, 5])
def test_sets_of_a_few_images(count, tmp_path, capsys):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).integers(0, 256, (count, 8, 8)))
    folder = tmp_path / "run"
    train(*TINY, "--dataset", tmp_path / "x.npy", "--epochs", 1, "--output-dir", folder)
    assert "nats per image (1 image, 10 importance samples" in capsys.readouterr().out
    result = json.loads((folder / "result.json").read_text(), parse_constant=pytest.fail)
    assert result["log_px_data_error"] is None


def test_a_fraction_for_validation(tmp_path):
    train(*TINY[2:], "--validation-size", 0.1, "--epochs", 1, "--output-dir", tmp_path / "run")
    assert len(load_run(tmp_path / "run")[2].validation) == 150
    assert load_config(tmp_path / "run" / "config.json").validation_size == 0.1


def test_results_are_there_before_figures_are_drawn(tmp_path, monkeypatch):
    def broken(*args):
        raise RuntimeError("no figure")

    monkeypatch.setattr(runs, "draw_figures", broken)
    with pytest.raises(RuntimeError, match="no figure"):
        train(*TINY, "--epochs", 1, "--output-dir", tmp_path / "run")
    assert (tmp_path / "run" / "result.json").is_file()


def test_the_key_of_the_latents_names_the_folders(tmp_path, monkeypatch):
    for name in ("cat", "dog"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(10):
            Image.fromarray(np.full((4, 4), i, np.uint8)).save(tmp_path / f"data/{name}/{i}.png")
    (tmp_path / "data" / "empty").mkdir()
    drawn = {}
    monkeypatch.setattr(results, "latent_scatter", lambda *_, **given: drawn.update(given))
    monkeypatch.setattr(results, "save", lambda *_: None)
    train(*TINY, "--epochs", 1, "--dataset", tmp_path / "data", "--output-dir", tmp_path / "run")
    assert drawn == {"classes": ("cat", "dog")}


@pytest.mark.parametrize("count", [2, 3])
def test_sets_of_two_and_three_images(count, tmp_path):
    np.save(tmp_path / "x.npy", np.arange(count * 16, dtype=np.uint8).reshape(count, 4, 4))
    run = tmp_path / "run"
    train(*TINY, "--epochs", 1, "--dataset", tmp_path / "x.npy", "--output-dir", run)
    assert json.loads((run / "result.json").read_text())["num_data"] == 1
    assert {"curves.png", "reconstructions.png"} <= {f.name for f in (run / "figures").iterdir()}
    script("evaluate")(run, "--num-samples", 30, "--no-progress")
    (written,) = run.glob("evaluation-*.json")
    assert json.loads(written.read_text())["log_px_data_error"] is None  # of one image


@pytest.mark.skipif(torch.cuda.is_available(), reason="a machine without CUDA is asked")
@pytest.mark.skipif(not hasattr(cpp_extension, "logger"), reason="torch 2.7 prints its warnings")
@pytest.mark.parametrize(("around", "warned"), [("nullcontext", True), ("quiet_compiler", False)])
def test_no_warning_of_cuda_on_a_machine_without_one(around, warned, tmp_path):
    module = "contextlib" if warned else "pyro_vae.programs.quiet"
    code = f"""from {module} import {around}
with {around}():
    import torch.utils.cpp_extension"""
    process = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "CUDA_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ("No CUDA runtime" in process.stderr) == warned


def test_json_has_no_nan(tmp_path):
    save_json({"a": float("nan"), "b": [float("inf"), 1.5], "c": {"d": Path("e")}}, tmp_path / "x")
    values = json.loads((tmp_path / "x").read_text(), parse_constant=pytest.fail)
    assert values == {"a": None, "b": [None, 1.5], "c": {"d": "e"}}


def test_a_sentence_without_an_error():
    result = {
        **{"log_px_data_error": None, "unit": "image", "num_data": 1, "num_samples": 2},
        **{"elbo": -2.0, "log_px": -1.0, "pixels": "counts", "data_seed": 0, "seed": 3},
    }
    assert sentence(result) == (
        "test ELBO -2.00, log p(x) -1.00 nats per image "
        "(1 image, 2 importance samples; counts pixels, data seed 0; seed 3)"
    )


def test_a_full_disk_is_one_sentence(capsys):
    error = RuntimeError("unexpected pos 64 vs 0")
    error.__context__ = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(SystemExit) as exit_, user_errors():
        raise error
    assert exit_.value.code == 2
    assert "error: expected space to write to, got [Errno 28]" in capsys.readouterr().err
    with pytest.raises(RuntimeError, match="a fault of ours"), user_errors():
        raise RuntimeError("a fault of ours")


def test_diverging_training_is_one_sentence(tmp_path):
    config = Config(max_images=20, hidden=(4,), lr=1e6, epochs=2, progress=False, device="cpu")
    with pytest.raises(FloatingPointError, match=r"expected finite .* Try a smaller --lr"):
        list(open_run(replace(config, output_dir=tmp_path / "run")).fit())


class FakeWriter:
    written = []

    def __init__(self, folder, purge_step):
        self.folder, self.purge_step = folder, purge_step

    def add_scalar(self, tag, value, step):
        self.written.append((Path(self.folder).name, self.purge_step, tag, step))

    def flush(self):
        pass

    def close(self):
        self.written.append("closed")


def test_tensorboard_receives_every_epoch(tmp_path, monkeypatch):
    fake = types.SimpleNamespace(SummaryWriter=FakeWriter)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", fake)
    FakeWriter.written.clear()
    train(*TINY, "--epochs", 2, "--tensorboard", "--output-dir", tmp_path / "run")
    *scalars, closed = FakeWriter.written
    assert closed == "closed"
    for epoch in (1, 2):
        assert ("tensorboard", 1, "validation/validation_elbo", epoch) in scalars


def test_without_tensorboard_no_run_is_begun(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(SystemExit):
        train(*TINY, "--tensorboard", "--output-dir", tmp_path / "run")
    assert "expected the package tensorboard for --tensorboard" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_options_have_groups(capsys):
    with pytest.raises(SystemExit):
        train("--help")
    shown = capsys.readouterr().out
    for group in ("data", "model", "objective", "training", "run"):
        assert f" {group} options " in shown
    assert parse(["--seed", "3"]) == Config(seed=3)
