"""What a step of SVI costs."""

import pyro
import torch
from torch import Tensor

from pyro_vae.nets import BFloat16

from .contestants import hand_written, ours, random_images, stock, vae
from .numpyro_rows import steps as numpyro_steps
from .options import D, Options, Rows, Step

REFERENCE = "hand-written, fused Adam"


def products(options: Options, x: Tensor) -> Step:
    """The matrix products of a step alone: three per layer, less the first input gradient."""
    sizes = [
        (D, options.hidden),
        (options.hidden, 2 * options.latent),
        (options.latent, options.hidden),
        (options.hidden, D),
    ]
    layers = [(torch.randn(len(x), i), torch.randn(len(x), o), torch.randn(o, i)) for i, o in sizes]

    def step() -> None:
        for index, (h, grad, weight) in enumerate(layers):
            torch.mm(h, weight.t())
            torch.mm(grad.t(), h)
            if index:
                torch.mm(grad, weight)

    return step


def step_rows(options: Options) -> Rows:
    """Everything that takes the step."""
    x = random_images(options.batch)
    floor = {"matrix products alone": products(options, x)} if options.architecture == "mlp" else {}
    elbo, jit = pyro.infer.Trace_ELBO(), pyro.infer.JitTrace_ELBO(ignore_jit_warnings=True)
    return floor | {
        REFERENCE: hand_written(options, x, fused=True),
        "hand-written, default Adam": hand_written(options, x),
        f"{REFERENCE}, torch.compile": hand_written(options, x, compile=True, fused=True),
        "Pyro SVI, Trace_ELBO": stock(options, x, elbo),
        "Pyro SVI, Trace_ELBO, our programs": stock(options, x, elbo, vae),
        "Pyro SVI, TraceMeanField_ELBO": stock(options, x, pyro.infer.TraceMeanField_ELBO()),
        "Pyro SVI, JitTrace_ELBO": stock(options, x, jit),
        "pyro_vae, eager": ours(options, x),
        "pyro_vae, compiled": ours(options, x, compile=True),
        "pyro_vae, eager, bf16": ours(options, x, precision=BFloat16),
        "pyro_vae, compiled, bf16": ours(options, x, compile=True, precision=BFloat16),
        **numpyro_steps(options, x),
    }
