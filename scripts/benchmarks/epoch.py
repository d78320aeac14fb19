"""What an epoch of MNIST costs, with its loading."""

import math

import pyro
import torch
from torch.utils.data import DataLoader

from pyro_vae import load_data
from pyro_vae.data import Images

from .contestants import Stock, ours, svi, vae
from .numpyro_rows import epoch as numpyro_epoch
from .options import Options, Rows, Step
from .versions import epochs


def training_set(options: Options) -> Images:
    """MNIST's 60,000 training images, dynamically binarised."""
    data = load_data("mnist", options.data_dir, pixels="dynamic", validation_size=0)
    return data.train.to(options.device)


def epoch_rows(options: Options) -> Rows:
    """A pass over MNIST, dynamically binarised, with its loading."""
    train = training_set(options)
    number = 4 * options.blocks + 5  # blocks may be repeated
    records = epochs(svi(vae(options), compile=True), train, number, options.batch)
    compiled_step = ours(options, train.batch(torch.arange(options.batch)), compile=True)
    steps = math.ceil(len(train) / options.batch)

    def bare_steps() -> None:
        for _ in range(steps):
            compiled_step()

    return {
        f"{steps} compiled steps": bare_steps,
        "pyro_vae, compiled, iter_epochs": lambda: next(records),
        "Pyro SVI, Trace_ELBO, torchvision's ToTensor loader": torchvision_epoch(options),
        **numpyro_epoch(options, train),
    }


def torchvision_epoch(options: Options) -> Step:
    """An epoch as Pyro's example has it: PIL images, ``ToTensor``, a ``DataLoader``, stock SVI."""
    from torchvision import datasets, transforms

    data = datasets.MNIST(options.data_dir, transform=transforms.ToTensor())
    loader = DataLoader(data, batch_size=options.batch, shuffle=True)
    pair, store, elbo = Stock(options), pyro.get_param_store(), pyro.infer.Trace_ELBO()
    stock = pyro.infer.SVI(pair.model, pair.guide, pyro.optim.Adam({"lr": 1e-3}), elbo)

    def epoch() -> None:
        with store.scope():
            for images, _ in loader:
                stock.step(torch.bernoulli(images.flatten(1)).to(options.device))

    return epoch
