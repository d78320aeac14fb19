"""The names that the calls may use, and the files that they find in their working directory."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

SETTING = """
import numpy as np
import pyro
import pyro.distributions as dist
import torch
from torch.utils.data import DataLoader

from pyro_vae import *
from pyro_vae import plots
from pyro_vae.evaluation import AIS, interpolate, sample, traverse
from pyro_vae.objectives import FreeBits, Renyi

vae = VAE(StandardNormal(2), Bernoulli(mlp(2, 4, 64)), DiagonalNormal(mlp(64, 4, 4)))
wide = VAE(StandardNormal(3), Bernoulli(mlp(3, 4, 64)), DiagonalNormal(mlp(64, 4, 6)))
unfit = VAE(StandardNormal(3), Bernoulli(mlp(2, 4, 64)), DiagonalNormal(mlp(64, 4, 4)))
own = VAE(StandardNormal(2), Bernoulli(torch.nn.LSTM(2, 4)), DiagonalNormal(mlp(64, 4, 4)))
x = torch.ones(3, 64)


def adam(vae):
    return torch.optim.Adam(vae.parameters(), lr=1e-3)


svi = SVI(vae.model, vae.guide, adam(vae), loss=Trace_ELBO())


def misnamed(x):
    with pyro.plate("data", len(x)):
        pyro.sample("code", vae.encoder(x))


def bare(x):
    scale = pyro.param("scale", torch.ones(()))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(2), scale).to_event(1))
        pyro.sample("x", vae.decoder(z), obs=x)


def shared(x):
    z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    with pyro.plate("data", len(x)):
        pyro.sample("x", vae.decoder(z), obs=x)


def shared_guide(x):
    pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))


save(vae, "saved")
"""


def setting() -> dict[str, Any]:
    """The names, fresh."""
    names: dict[str, Any] = {}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        exec(SETTING, names)
    return names


def write_files(folder: Path) -> None:
    """Arrays and pictures that cannot be read, or not be used."""
    np.save(folder / "one.npy", np.zeros((1, 4, 4), np.uint8))
    np.save(folder / "nan.npy", np.array([[0.5, np.nan]] * 9))
    np.save(folder / "standardised.npy", np.array([[-1.5, 2.5]] * 9))
    np.save(folder / "pickled.npy", np.array([{}, None], dtype=object), allow_pickle=True)
    (folder / "table.csv").write_text("a,b\n1,2\n")
    images = {
        "single": {"a.png": Image.new("L", (4, 4))},
        "sizes": {"a.png": Image.new("L", (4, 4)), "b.png": Image.new("L", (5, 4))},
        "rgba": {"a.png": Image.new("RGBA", (4, 4))},
        "deep": {"a.png": Image.new("I;16", (4, 4))},
    }
    for name, files in images.items():
        (folder / name).mkdir()
        for file, image in files.items():
            image.save(folder / name / file)
    (folder / "empty").mkdir()
    (folder / "notes").mkdir()
    (folder / "notes" / "a.png").write_text("no image")
    (folder / "damaged").mkdir()
    (folder / "damaged" / "config.json").write_text("{")
