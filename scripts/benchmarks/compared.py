"""One checkout's rows in a comparison of two: run in a process of its own, which imports it."""

import math
import sys
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from .options import Options, Rows, Step

BATCHES = 100
"""Batches of an epoch."""


class RandomImages:
    """Grey 8-bit pixels, binarised anew in each batch."""

    def __init__(self, number: int, size: int) -> None:
        values = torch.rand(number, size, generator=torch.Generator().manual_seed(0))
        self.values = (values.square() * 255).byte()

    def __len__(self) -> int:
        return len(self.values)

    def batch(self, indices: torch.Tensor) -> torch.Tensor:
        """Zeros and ones, (len(indices), D)."""
        values = self.values[indices]
        return (torch.randint(255, values.shape, dtype=torch.uint8) < values).float()


def guides(options: "Options") -> "Rows":
    """Evaluations of the r1 network with several guides, and of convolutional networks (r3)."""
    from pyro_vae import log_likelihood, mlp

    from .contestants import random_images, vae
    from .options import D
    from .versions import found, over

    K, few, many = 5000, random_images(8), random_images(200)

    def with_guide(flow: Any) -> Any:
        pair = vae(options)
        pair.encoder = over(flow, lambda outputs: mlp(D, options.hidden, outputs), options.latent)
        return pair

    def weighted(pair: Any) -> "Step":
        return lambda: log_likelihood(pair.model, pair.guide, few, num_samples=K)

    pairs = {
        "diagonal": vae(options),
        "IAF": with_guide(found("pyro_vae.families:IAF", "pyro_vae.flows:IAF")),
        "spline": with_guide(
            found("pyro_vae.families:NeuralSpline", "pyro_vae.flows:NeuralSpline")
        ),
    }
    evaluate = found("pyro_vae:evaluate", "pyro_vae.evaluate:evaluate")
    r3 = vae(replace(options, architecture="conv", latent=2))
    return {
        f"log p(x), {len(few)} images, K = {K}, {name} guide": weighted(pair)
        for name, pair in pairs.items()
    } | {
        f"evaluate, {len(many)} images, conv, K = 100": lambda: evaluate(
            r3.model, r3.guide, many, num_samples=100
        )
    }


def rows(options: "Options") -> "Rows":
    """Steps, an epoch and evaluations of the package that is imported first."""
    from pyro_vae import log_likelihood

    from .contestants import ours, random_images, svi, vae
    from .options import D
    from .versions import epochs, found, shared_graph

    iwae = found("pyro_vae:IWAE", "pyro_vae.iwae:IWAE")
    x, x_test = random_images(options.batch), random_images(options.images)
    pair, K = vae(options), options.num_samples
    programs, graph = (pair.model, pair.guide), shared_graph(pair)
    data = RandomImages(BATCHES * options.batch, D)
    passes = epochs(svi(vae(options), compile=True), data, 10_000, options.batch)
    return {
        "step, eager": ours(options, x),
        "step, compiled": ours(options, x, compile=True),
        "IWAE-5 step, eager": ours(options, x, loss=iwae(5)),
        "IWAE-5 step, compiled": ours(options, x, loss=iwae(5), compile=True),
        f"epoch of {BATCHES} batches, compiled": lambda: next(passes),
        f"log p(x), K = {K}, eager": lambda: log_likelihood(*programs, x_test, num_samples=K),
        f"log p(x), K = {K}, compiled": lambda: log_likelihood(
            *programs, x_test, num_samples=K, compile=graph
        ),
    }


TABLES = {"steps": rows, "guides": guides}


def serve(
    checkout: str, connection: Connection, table: str, options: "Options", seconds: float
) -> None:
    """Time a block of the row that is asked for, until None is. Sends the names of the rows first.

    A block takes about ``seconds``. The answer is (seconds per call, switches per second).
    """
    sys.path.insert(0, checkout)
    torch.set_flush_denormal(True)
    torch.set_num_threads(options.threads or torch.get_num_threads())
    import pyro_vae

    from .measure import timed

    file: Any = pyro_vae.__file__
    if not file.startswith(checkout):
        raise ImportError(f"expected pyro_vae from {checkout}, got {file}")
    steps = TABLES[table](options)
    counts = {}
    for name, step in steps.items():
        timed(step, 3)
        counts[name] = max(math.ceil(seconds / timed(step, 2)[0]), 1)
    connection.send(list(steps))
    while (name := connection.recv()) is not None:
        connection.send(timed(steps[name], counts[name], options.switches))
