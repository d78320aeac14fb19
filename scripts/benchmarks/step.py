"""What a step of SVI costs."""

import pyro
import torch
from torch import Tensor

from pyro_vae import IWAE
from pyro_vae.nets import BFloat16

from .contestants import (
    captured,
    hand_written,
    hand_written_iwae,
    ours,
    random_images,
    several,
    stock,
    traces_alone,
    vae,
)
from .numpyro_rows import steps as numpyro_steps
from .options import D, Options, Rows, Step

REFERENCE = "hand-written, fused Adam"
SAMPLES = 50
"""K of the steps of the importance-weighted bound."""


def products(options: Options, x: Tensor) -> Step:
    """The matrix products of a step alone: three per layer, less the first input gradient."""
    sizes = [
        (D, options.hidden),
        (options.hidden, 2 * options.latent),
        (options.latent, options.hidden),
        (options.hidden, D),
    ]
    layers = [
        [torch.randn(*shape, device=x.device) for shape in ((len(x), i), (len(x), o), (o, i))]
        for i, o in sizes
    ]

    def step() -> None:
        for index, (h, grad, weight) in enumerate(layers):
            torch.mm(h, weight.t())
            torch.mm(grad.t(), h)
            if index:
                torch.mm(grad, weight)

    return step


def step_rows(options: Options) -> Rows:
    """Everything that takes the step."""
    x = random_images(options.batch, options.device)
    floor = {"matrix products alone": products(options, x)} if options.architecture == "mlp" else {}
    elbo, jit = pyro.infer.Trace_ELBO(), pyro.infer.JitTrace_ELBO(ignore_jit_warnings=True)
    return floor | {
        REFERENCE: hand_written(options, x, fused=True),
        "hand-written, default Adam": hand_written(options, x),
        f"{REFERENCE}, torch.compile": hand_written(options, x, compile=True, fused=True),
        **(cuda_rows(options, x) if x.is_cuda else {}),
        "Pyro runs both programs, loss by hand": traces_alone(options, x, fused=True),
        "Pyro SVI, Trace_ELBO": stock(options, x, elbo),
        "Pyro SVI, Trace_ELBO, our programs": stock(options, x, elbo, vae),
        "Pyro SVI, TraceMeanField_ELBO": stock(options, x, pyro.infer.TraceMeanField_ELBO()),
        "Pyro SVI, JitTrace_ELBO": stock(options, x, jit),
        "pyro_vae, eager": ours(options, x),
        "pyro_vae, compiled": ours(options, x, compile=True),
        f"pyro_vae, compiled, {options.steps} steps in a call": several(options, x),
        "pyro_vae, eager, bf16": ours(options, x, precision=BFloat16),
        "pyro_vae, compiled, bf16": ours(options, x, compile=True, precision=BFloat16),
        **numpyro_steps(options, x),
    }


def cuda_rows(options: Options, x: Tensor) -> Rows:
    """The hand-written step as a CUDA graph."""
    graphs = hand_written(options, x, compile=True, mode="reduce-overhead", fused=True)
    return {
        f"{REFERENCE}, torch.compile with CUDA graphs": graphs,
        f"{REFERENCE}, one CUDA graph": captured(options, x),
    }


def iwae_rows(options: Options) -> Rows:
    """Everything that takes a step of the importance-weighted bound."""
    x, loss = random_images(options.batch, options.device), IWAE(SAMPLES)
    renyi = pyro.infer.RenyiELBO(
        alpha=0, num_particles=SAMPLES, vectorize_particles=True, max_plate_nesting=1
    )
    return {
        REFERENCE: hand_written_iwae(options, x, SAMPLES, fused=True),
        "Pyro SVI, RenyiELBO(alpha=0)": stock(options, x, renyi),
        "pyro_vae, eager": ours(options, x, loss=loss),
        "pyro_vae, compiled": ours(options, x, loss=loss, compile=True),
        "pyro_vae, compiled, bf16": ours(options, x, loss=loss, compile=True, precision=BFloat16),
    }
