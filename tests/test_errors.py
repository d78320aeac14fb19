"""What users do wrong, and the sentence that tells them: (call, exception, message)."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from running import TINY, script

from pyro_vae import (
    SVI,
    VAE,
    Bernoulli,
    DiagonalNormal,
    StandardNormal,
    Trace_ELBO,
    data,
    log_likelihood,
    log_weights,
    mlp,
)
from pyro_vae.data.images import Images, Pixels
from pyro_vae.experiments.build import build_svi, build_vae, choose_device
from pyro_vae.experiments.command_line import parse
from pyro_vae.experiments.config import Config
from pyro_vae.experiments.runs import load_run, open_run
from pyro_vae.experiments.storage import load_config
from pyro_vae.families.normal import Normal
from pyro_vae.training.loop import fit

NO_DEVICE = (
    "cuda"
    if not torch.cuda.is_available()
    else "mps"
    if not torch.backends.mps.is_available()
    else "tpu"
)
SMALL = Config(max_images=20, hidden=(4,), latent_dim=2, device="cpu", progress=False)


def a_vae(latent_dim=2, prior_dim=2, decoder_dim=2, D=64, likelihood=Bernoulli):
    return VAE(
        StandardNormal(prior_dim),
        likelihood(mlp(decoder_dim, 4, D)),
        DiagonalNormal(mlp(D, 4, 2 * latent_dim)),
    )


def a_step(vae, x):
    return SVI(vae.model, vae.guide, torch.optim.Adam(vae.parameters()), loss=Trace_ELBO()).step(x)


def saved(path, array):
    np.save(path, np.asarray(array))
    return path


def a_folder(path, *files):
    """A folder of images (name, size), or files of text (name, None)."""
    path.mkdir()
    for name, size in files:
        if size is None:
            (path / name).write_text("no image")
        else:
            Image.new("L", size).save(path / name)
    return path


def with_config(path, text):
    path.mkdir()
    (path / "config.json").write_text(text)
    return path


def a_run(path, config=SMALL):
    list(open_run(replace(config, output_dir=path, epochs=1)).fit())
    return path


DATA = {
    "missing data folder": (
        lambda p: data.load_data("mnist", p / "none"),
        FileNotFoundError,
        "'mnist' in torchvision's layout under the folder",
    ),
    "no data folder": (
        lambda p: open_run(replace(SMALL, dataset="mnist", data_dir=p)),
        FileNotFoundError,
        "--download",
    ),
    "missing array": (
        lambda p: data.load_data(p / "none.npy"),
        FileNotFoundError,
        "expected an array file or a folder .*got .*none.npy.*does not exist",
    ),
    "unknown data set": (
        lambda p: data.load_data("digit"),
        ValueError,
        "expected one of digits, mnist, .* got 'digit'",
    ),
    "empty folder": (
        lambda p: data.load_data(a_folder(p / "empty")),
        ValueError,
        "expected images .* in the folder .*empty.*, got none",
    ),
    "unreadable image": (
        lambda p: data.load_data(a_folder(p / "f", ("a.png", None))),
        ValueError,
        "expected a readable .* image, got .*a.png",
    ),
    "images of two sizes": (
        lambda p: data.load_data(a_folder(p / "f", ("a.png", (4, 4)), ("b.png", (5, 4)))),
        ValueError,
        "expected images of one size, got .4, 4. in .*a.png.* and .4, 5. in .*b.png",
    ),
    "NaN pixels": (
        lambda p: data.load_data(saved(p / "x.npy", [[0.5, math.nan]] * 9)),
        ValueError,
        "pixels in .0, 1., got values in .nan",
    ),
    "pixels out of range": (
        lambda p: data.load_data(saved(p / "x.npy", [[0.5, 1.5]] * 9)),
        ValueError,
        r"pixels in .0, 1., got values in .0.5, 1.5.",
    ),
    "negative pixels": (
        lambda p: data.load_data(saved(p / "x.npy", [[-1, 3]] * 9)),
        ValueError,
        r"pixels in .0, 255., got values in .-1, 3.",
    ),
    "pickled array": (
        lambda p: data.load_data(saved(p / "x.npy", np.array([{}, None], dtype=object))),
        ValueError,
        "array file without pickled objects",
    ),
    "unknown pixels": (
        lambda p: data.load_data("digits", pixels="gray"),
        ValueError,
        "expected pixels to be one of static, .* got 'gray'",
    ),
    "values and shape": (
        lambda p: Images(torch.zeros(3, 5, dtype=torch.uint8), (1, 2, 2), Pixels.GREY, 255),
        ValueError,
        r"with .C, H, W. = .1, 2, 2., got .3, 5.",
    ),
}

PROGRAMS = {
    "wrong image size": (
        lambda p: a_step(a_vae(), torch.ones(3, 63)),
        ValueError,
        r"expected input .\.\.\., 64., got .3, 63.",
    ),
    "grey under Bernoulli": (
        lambda p: a_step(a_vae(), torch.rand(3, 64)),
        ValueError,
        "in the support .*Boolean.* of its Bernoulli, got values in",
    ),
    "grey images under Bernoulli": (
        lambda p: build_vae(
            replace(SMALL, likelihood="bernoulli"), data.load_data("digits", pixels="grey").train
        ),
        ValueError,
        "a density of grey pixels .continuous_bernoulli, normal., got bernoulli, "
        "which is one of dynamic, static, threshold pixels",
    ),
    "NaN data": (
        lambda p: a_step(a_vae(likelihood=Normal), torch.full((3, 64), math.nan)),
        ValueError,
        "found invalid values:\\s+tensor...nan",
    ),
    "prior and guide": (
        lambda p: a_step(a_vae(prior_dim=3), torch.ones(3, 64)),
        ValueError,
        r"site 'z' in the model's shape .3, 3., got .3, 2.",
    ),
    "latents and decoder": (
        lambda p: a_step(a_vae(decoder_dim=3), torch.ones(3, 64)),
        ValueError,
        r"expected input .\.\.\., 3., got .3, 2.",
    ),
    "K of 0": (
        lambda p: log_likelihood(*programs(), torch.ones(3, 64), num_samples=0),
        ValueError,
        "num_samples .* at least 1, got 0",
    ),
    "K of -1": (
        lambda p: log_weights(*programs(), torch.ones(3, 64), num_samples=-1),
        ValueError,
        "num_samples .* at least 1, got -1",
    ),
    "no particles": (
        lambda p: Trace_ELBO(num_particles=0),
        ValueError,
        "expected num_particles of at least 1, got 0",
    ),
    "negative beta": (
        lambda p: Trace_ELBO(beta=-1.0),
        ValueError,
        "expected beta of at least 0, got -1",
    ),
    "Pyro's optimiser": (
        lambda p: SVI(*programs(), object(), Trace_ELBO()),
        TypeError,
        "expected a torch.optim.Optimizer, got object",
    ),
}

RUNS = {
    "latent of 0": (
        lambda p: build_vae(replace(SMALL, latent_dim=0), digits()),
        ValueError,
        "expected latent_dim of at least 1, got 0",
    ),
    "batch of 0": (
        lambda p: build_svi(replace(SMALL, batch_size=0), a_vae(), 10),
        ValueError,
        "expected batch_size of at least 1, got 0",
    ),
    "no images": (
        lambda p: open_run(replace(SMALL, max_images=0)),
        ValueError,
        "expected max_images of at least 1, got 0",
    ),
    "negative epochs": (
        lambda p: list(open_run(replace(SMALL, epochs=-1, output_dir=p)).fit()),
        ValueError,
        "epochs of at least 1, got -1",
    ),
    "a device that is not there": (
        lambda p: choose_device(NO_DEVICE),
        ValueError,
        f"a device that this machine has .auto, .*, got '{NO_DEVICE}'",
    ),
    "no such device": (lambda p: choose_device("gpu"), ValueError, "got 'gpu'"),
    "a bias without a linear layer": (
        lambda p: build_vae(replace(SMALL, architecture="conv", init_output_bias=True), digits()),
        TypeError,
        "a network that ends in nn.Linear",
    ),
    "unknown preset": (
        lambda p: parse(["--preset", "r9"]),
        ValueError,
        "expected preset to be one of r1, .*, got 'r9'",
    ),
    "folder with a run": (
        lambda p: a_run(a_run(p / "run")),
        ValueError,
        "expected a folder without a run, got .*run: continue it with --resume",
    ),
    "resume nothing": (
        lambda p: parse(["--resume", str(p)]),
        FileNotFoundError,
        "expected the folder of a run, which has a config.json, got",
    ),
    "resume another run": (
        lambda p: open_run(replace(SMALL, lr=0.1, beta=2.0, resume=a_run(p / "run"))),
        ValueError,
        "beta = 1.0, lr = 0.001, got beta = 2.0, lr = 0.1",
    ),
    "load nothing": (
        lambda p: load_run(p / "none"),
        FileNotFoundError,
        "expected the folder of a run",
    ),
    "load a run without an epoch": (
        lambda p: load_run(open_run(replace(SMALL, output_dir=p / "run")).folder),
        FileNotFoundError,
        "a finished epoch, which has a best.pt",
    ),
    "unknown options": (
        lambda p: load_config(with_config(p / "run", '{"latents": 3}') / "config.json"),
        ValueError,
        r"the options of a run in .*, got .'latents'.",
    ),
    "no JSON": (
        lambda p: load_config(with_config(p / "run", "{") / "config.json"),
        ValueError,
        "expected JSON in",
    ),
    "no options": (
        lambda p: load_config(with_config(p / "run", "[]") / "config.json"),
        ValueError,
        "got list",
    ),
    "damaged weights": (
        lambda p: load_run(damaged(a_run(p / "run"))),
        ValueError,
        "got a corrupt, truncated or foreign file",
    ),
    "patience without validation": (
        lambda p: next(fit(a_svi(), digits(), epochs=1, patience=1, progress=False)),
        ValueError,
        "expected a validation set for patience 1, got none",
    ),
}

NAMES = {
    "architecture": "mlp, conv",
    "activation": "relu, tanh",
    "likelihood": "bernoulli, ",
    "guide": "diagonal",
    "prior": "standard",
    "objective": "elbo, analytic",
    "annealing": "none, linear, cyclical",
    "optimiser": "adam, adagrad",
    "lr_schedule": "constant, ",
}


def programs():
    vae = a_vae()
    return vae.model, vae.guide


def a_svi():
    vae = a_vae()
    return SVI(vae.model, vae.guide, torch.optim.Adam(vae.parameters()), loss=Trace_ELBO())


def digits():
    return data.load_data("digits").train


def damaged(run):
    (run / "best.pt").write_bytes((run / "best.pt").read_bytes()[:1000])
    return run


TABLE = DATA | PROGRAMS | RUNS


@pytest.mark.parametrize("name", TABLE)
def test_errors(name, tmp_path, monkeypatch):
    call, exception, message = TABLE[name]
    monkeypatch.chdir(tmp_path)
    with pytest.raises(exception, match=message):
        call(tmp_path)


@pytest.mark.parametrize("option", NAMES)
def test_unknown_names(option, tmp_path):
    config = replace(SMALL, output_dir=tmp_path / "run", **{option: "nonsense"})
    with pytest.raises(
        ValueError, match=f"expected {option} to be one of {NAMES[option]}.*, got 'nonsense'"
    ):
        open_run(config)
    assert not (tmp_path / "run").exists()  # no folder for a run that cannot be


SCRIPTS = {
    "train": (
        [*TINY, "--likelihood", "bernoulli"],
        "error: expected a likelihood that is a density of counts pixels (binomial), got bernoulli",
    ),
    "evaluate": (
        ["none"],
        "error: expected the folder of a run, which has a config.json, got none",
    ),
    "sample": (
        ["none", "--n", "3"],
        "error: expected the folder of a run, which has a config.json, got none",
    ),
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_say_what_is_wrong_in_one_line(name, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    args, message = SCRIPTS[name]
    with pytest.raises(SystemExit) as exit_:
        script(name)(*args)
    err = capsys.readouterr().err
    assert exit_.value.code == 2
    assert err.startswith(message)
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_unknown_options_are_refused(capsys):
    with pytest.raises(SystemExit) as exit_:
        script("train")("--latents", 3)
    assert exit_.value.code == 2
    assert "--latents" in capsys.readouterr().err
