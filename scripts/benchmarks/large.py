"""What importance-weighted log p(x) of large images costs."""

import resource
import time
from typing import Any

import torch
from torch import Tensor

from pyro_vae import VAE, DiagonalNormal, StandardNormal, log_likelihood, mlp
from pyro_vae.families import DiscretizedLogistic
from pyro_vae.nets import Divide

from .measure import wait
from .options import Options
from .versions import shared_graph

SIZE = 105 * 105
"""The pixels of an image of Omniglot."""

WARM_UP = 16
"""Images of the first run, which compiles: two blocks of data, so that no shape is new later."""


def large_images(options: Options) -> dict[str, float]:
    """Seconds, and the system's share of the processor time, for 8-bit pixels; once."""
    torch.manual_seed(0)
    pair = VAE(
        StandardNormal(options.latent),
        DiscretizedLogistic(mlp(options.latent, options.hidden, 2 * SIZE)),
        DiagonalNormal(
            torch.nn.Sequential(Divide(255), mlp(SIZE, options.hidden, 2 * options.latent))
        ),
    ).to(options.device)
    x = torch.randint(0, 256, (options.large, SIZE), device=options.device).float()

    def run(x: Tensor, compile: Any) -> None:
        log_likelihood(pair.model, pair.guide, x, num_samples=options.num_samples, compile=compile)
        wait()

    found: dict[str, float] = {}
    for name, compile in {"eager": False, "compiled": shared_graph(pair)}.items():
        run(x[:WARM_UP], compile)
        start, before = time.perf_counter(), _used()
        run(x, compile)
        user, system = (b - a for a, b in zip(before, _used(), strict=True))
        found[f"{name}, s"] = time.perf_counter() - start
        found[f"{name}, share of system time"] = system / (user + system)
    return found


def _used() -> tuple[float, float]:
    """User and system seconds of this process."""
    usage: Any = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime, usage.ru_stime
