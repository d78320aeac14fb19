"""Faults that an audit found: data of another type than the network end in a sentence."""

import pyro
import pytest
import torch
from sentences import refused

from pyro_vae import (
    SVI,
    VAE,
    Bernoulli,
    DiagonalNormal,
    StandardNormal,
    Trace_ELBO,
    log_likelihood,
    mlp,
)
from pyro_vae.evaluation.report import evaluate
from pyro_vae.objectives.doubly_reparameterised import DReG

B, D = 8, 6


def pixels(rows=B):
    return (torch.rand(rows, D, generator=torch.Generator().manual_seed(0)) > 0.5).double()


def plain():
    torch.manual_seed(0)
    return VAE(StandardNormal(2), Bernoulli(mlp(2, 8, D)), DiagonalNormal(mlp(D, 8, 4)))


def svi_of(pair, compile=False):
    return SVI(
        pair.model, pair.guide, torch.optim.Adam(pair.parameters()), Trace_ELBO(), compile=compile
    )


# 15. Data of another type than the network


CALLS = {
    "step": lambda vae, x: svi_of(vae).step(x),
    "evaluate_loss": lambda vae, x: svi_of(vae).evaluate_loss(x),
    "log_likelihood": lambda vae, x: log_likelihood(vae.model, vae.guide, x, num_samples=3),
    "evaluate": lambda vae, x: evaluate(vae.model, vae.guide, x, num_samples=3),
    "objective": lambda vae, x: Trace_ELBO().estimate(vae.model, vae.guide, x),
    "weighted": lambda vae, x: DReG(2).estimate(vae.model, vae.guide, x),
    "compiled": lambda vae, x: svi_of(vae, compile=True).step(x),
}


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float64])
@pytest.mark.parametrize("name", CALLS)
def test_data_of_another_type_are_refused(name, dtype):
    vae = plain().float()
    with refused() as error, pyro.validation_enabled(True):
        CALLS[name](vae, pixels().to(dtype))
    assert f"got {dtype}" in str(error.value)
    assert ".float()" in str(error.value)
