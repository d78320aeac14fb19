"""What is typed wrong, and the sentence that says so: (script, arguments, sentence)."""

import json
import shutil

import numpy as np
import pytest
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
"""Stands for the folder of a finished run of three epochs; other names are made beside it."""

TRAIN = {
    "no epochs": (["--epochs", 0], "expected epochs of at least 1, got 0"),
    "negative epochs": (["--epochs", -3], "expected epochs of at least 1, got -3"),
    "no samples": (["--num-samples", 0], "expected num_samples of at least 1, got 0"),
    "negative images": (["--max-images", -5], "expected max_images of at least 1, got -5"),
    "no batch": (["--batch-size", 0], "expected batch_size of at least 1, got 0"),
    "no latents": (["--latent-dim", 0], "expected latent_dim of at least 1, got 0"),
    "no units": (["--hidden", 16, 0], "expected hidden of at least 1, got 16 0"),
    "no rate": (["--lr", 0], "expected a finite lr greater than 0, got 0.0"),
    "negative rate": (["--lr", -1], "expected a finite lr greater than 0, got -1.0"),
    "a rate that is no number": (["--lr", "nan"], "expected a finite lr greater than 0, got nan"),
    "no scale": (["--scale", 0], "expected a finite scale greater than 0, got 0.0"),
    "no norm": (["--clip-norm", 0], "expected a finite clip_norm greater than 0, got 0.0"),
    "negative beta": (["--beta", -1], "expected beta of at least 0, got -1.0"),
    "betas of Adam": (["--adam-betas", 0.9, 1], "expected adam_betas in [0, 1), got (0.9, 1.0)"),
    "no patience": (["--patience", 0], "expected patience of at least 1, got 0"),
    "patience for nothing": (
        ["--patience", 2, "--validation-size", 0],
        "expected a validation set for patience 2, got none",
    ),
    "no annealing": (["--annealing-epochs", 0], "expected annealing_epochs of at least 1, got 0"),
    "negative seed": (["--seed", -1], "expected seed of at least 0, got -1"),
    "too large a rate": (["--lr", 1e6], "Try a smaller --lr (now 1e+06) or --clip-norm"),
    "unknown preset": (["--preset", "r9"], "expected preset to be one of r1, r2, r3, r4, r5"),
    "unknown data set": (["--dataset", "digit"], "expected one of digits, mnist, "),
    "missing array": (["--dataset", "none.npy"], "got 'none.npy', which does not exist"),
    "one image": (["--dataset", "one.npy"], "expected "),
    "all for validation": (["--validation-size", 1.5], "expected a validation_size of 0 to "),
    "a preset to resume": (["--resume", RUN, "--preset", "r1"], "--resume without --preset"),
    "a new folder to resume": (
        ["--resume", RUN, "--output-dir", "new"],
        "expected --resume without --output-dir",
    ),
    "fewer epochs than done": (
        ["--resume", RUN, "--epochs", 2],
        "expected epochs of at least 3, which ",
    ),
    "nothing to resume": (["--resume", "none"], "expected the folder of a run, which has a "),
    "another model to resume": (
        ["--resume", RUN, "--beta", 2],
        "expected the options of the run that is resumed, beta = 1.0, got beta = 2.0",
    ),
    "a folder with a run": (["--output-dir", RUN], "continue it with --resume "),
    "an edited rate": (
        ["--resume", "edited"],
        "as the run was begun with (begin a new run), lr = 0.001, got lr = 0.5",
    ),
    "a batch of many": (
        ["--resume", "many"],
        "expected batch_size in many/config.json to be of type int, got 'many'",
    ),
    "hidden units of text": (
        ["--resume", "text"],
        "expected hidden in text/config.json to be a list of int values, got ['a']",
    ),
}

EVALUATE = {
    "no samples": ([RUN, "--num-samples", 0], "expected num_samples of at least 1, got 0"),
    "negative images": ([RUN, "--max-images", -5], "expected max_images of at least 1, got -5"),
    "few of none": ([RUN, "--gaps", "--few", 0], "expected few of at least 1, got 0"),
    "no annealing": ([RUN, "--ais", "--ais-steps", 0], "expected ais_steps of at least 1, got 0"),
    "one draw": ([RUN, "--kl-draws", 1], "expected kl_draws of 0, or at least 2, got 1"),
    "negative draws": ([RUN, "--kl-draws", -1], "expected kl_draws of at least 0, got -1"),
    "negative seed": ([RUN, "--seed", -1], "expected seed of at least 0, got -1"),
    "the same again": (
        [RUN, "--num-samples", 5],
        "which exists: --overwrite replaces it",
    ),
    "no run": (["none"], "expected the folder of a run, which has a config.json, got none"),
    "no function": (["pairs:"], "expected the folder of a run or module:function, got pairs:"),
    "no module": (["nowhere:pair"], "expected a module nowhere in "),
    "missing function": (["pairs:pair"], "expected a function pair in pairs, got none"),
    "no call": (["pairs:number"], "expected a function number in pairs, got int"),
    "no data": (["pairs:no_data"], "to return (model, guide, x), two programs and their data"),
    "no tensor": (["pairs:no_tensor"], "expected pairs:no_tensor to return a tensor of data"),
    "no programs": (["pairs:no_programs"], "data, got (int, int, Tensor)"),
    "nothing returned": (["pairs:nothing"], "two programs and their data, got NoneType"),
    "no device": ([RUN, "--device", "gpu"], "expected a device that this machine has (auto, "),
}

SAMPLE = {
    "none": ([RUN, "--n", 0], "expected n of at least 1, got 0"),
    "negative": ([RUN, "--n", -5], "expected n of at least 1, got -5"),
    "negative seed": ([RUN, "--seed", -1], "expected seed of at least 0, got -1"),
    "the same again": ([RUN, "--output", "old.png"], "got old.png, which exists: --overwrite"),
    "a folder": ([RUN, "--output", "."], "expected the path of a file to write, got the folder ."),
}

ANOMALY = {
    "negative": (["grey", "--images", -3], "expected images of at least 1, got -3"),
    "no samples": (["grey", "--num-samples", 0], "expected num_samples of at least 1, got 0"),
    "no steps": (["grey", "--fit-steps", 0], "expected fit_steps of at least 1, got 0"),
    "other data": ([RUN], "expected a run on mnist, got one on digits"),
    "grey pixels": (["grey"], "expected a run on binary pixels, got one on grey pixels"),
}

TABLE = [
    (name, case, *entry)
    for name, cases in (
        ("train", TRAIN),
        ("evaluate", EVALUATE),
        ("sample", SAMPLE),
        ("anomaly", ANOMALY),
    )
    for case, entry in cases.items()
]


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
    np.save(folder / "one.npy", np.zeros((1, 4, 4), np.uint8))
    (folder / "old.png").write_bytes(b"old")
    (folder / "pairs.py").write_text(PAIRS)
    return folder


@pytest.mark.parametrize(
    ("name", "case", "args", "sentence"), TABLE, ids=[f"{row[0]}: {row[1]}" for row in TABLE]
)
def test_bad_inputs_are_refused_in_one_sentence(
    name, case, args, sentence, folder, monkeypatch, capsys
):
    monkeypatch.chdir(folder)
    before = {path.name for path in folder.iterdir()} | {
        path.name for path in (folder / RUN).iterdir()
    }
    config = load_config(folder / RUN / "config.json")
    given = [*TINY, "--epochs", 1] if name == "train" and "--resume" not in args else []
    with pytest.raises(SystemExit) as exit_:
        script(name)(*given, *args)
    shown = capsys.readouterr().err.splitlines()[-1]
    assert exit_.value.code == 2
    assert shown.startswith("error: expected ")
    assert sentence in shown
    assert load_config(folder / RUN / "config.json") == config
    if case == "too large a rate":  # found out while it trains
        shutil.rmtree(folder / "runs")
    after = {path.name for path in folder.iterdir()} | {
        path.name for path in (folder / RUN).iterdir()
    }
    assert after - before <= {"__pycache__"}
