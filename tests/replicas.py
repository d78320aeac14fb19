"""What two processes under torchrun do for test_distributed.py: a step each, and training runs."""

import os
import sys
from contextlib import redirect_stdout
from pathlib import Path

import torch
from running import script, traced

from pyro_vae import SVI, VAE, Bernoulli, StandardNormal, Trace_ELBO, mlp
from pyro_vae.families.delta import Delta
from pyro_vae.inference.distributed import processes, rank, world_size

BATCH, D, Z = 12, 6, 3
OPTIONS = ["--epochs", "2", "--batch-size", "32", "--num-samples", "10", "--no-progress"]


def step(compile: bool) -> dict[str, torch.Tensor]:
    """The gradients of a VAE whose guide does not draw, on this process's share of the batch."""
    torch.manual_seed(0)
    vae = VAE(StandardNormal(Z), Bernoulli(mlp(Z, 8, D)), Delta(mlp(D, 8, Z))).double()
    x = (torch.rand(BATCH, D) < 0.4).double()
    svi = SVI(
        vae.model,
        vae.guide,
        torch.optim.SGD(vae.parameters(), lr=0.1),
        Trace_ELBO(),
        compile=compile,
    )
    with traced():
        svi.step(x[rank() :: world_size()])
    return {name: p.grad for name, p in vae.named_parameters() if p.grad is not None}


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    torch.set_num_threads(1)
    train, run = script("train"), folder / "run"
    runs = ["--output-dir", run, *OPTIONS], ["--resume", run, "--epochs", 3]
    with processes():
        for compile in (False, True):
            torch.save(step(compile), folder / f"{rank()}-{compile}.pt")
        for number, args in enumerate(runs):
            with (folder / f"{rank()}-{number}.txt").open("w") as out, redirect_stdout(out):
                train(*args)
    os._exit(0)  # the interpreter's farewell to gloo's threads is not what is tested
