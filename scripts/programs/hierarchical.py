"""Train a VAE of one stochastic layer, one of two layers, and a ladder; compare log p(x).

The sizes are those of Burda, Grosse & Salakhutdinov (2015): tanh networks 784-200-200-50 with one
layer; 784-200-200-100 and 100-100-100-50 with two. The ladder (Sønderby et al. 2016) has the same
networks and the top-down guide.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pyro_vae import (
    SVI,
    VAE,
    Bernoulli,
    DiagonalNormal,
    StandardNormal,
    Trace_ELBO,
    fit,
    linear,
    load_data,
    log_likelihood,
    mlp,
    set_output_bias,
)
from pyro_vae.data import Images
from pyro_vae.evaluation import active_units, kl_by_site, means_by_site
from pyro_vae.experiments.programs import Folder, ProgramOptions, program
from pyro_vae.models import HierarchicalVAE, LadderVAE
from pyro_vae.plots import layers

PUBLISHED = {"one": 86.76, "two": 85.33}
"""-log p(x) in nats, K = 5000, trained with K = 1 for 3280 epochs: Burda et al., table 1."""

Kind = Literal["one", "two", "ladder"]


@dataclass(frozen=True)
class Options(ProgramOptions):
    """The options."""

    models: tuple[Kind, ...] = ("one", "two", "ladder")
    """The models to train: one layer, two layers, the ladder of two layers."""
    data: str = "mnist"
    """The data set; its pixels are drawn again in each batch."""
    epochs: int = 50
    batch_size: int = 100
    learning_rate: float = 3e-3
    """The learning rate at the start; it follows a cosine to zero."""
    clip_norm: float | None = None
    """The largest norm of the gradient of a batch; none by default."""
    warm_up: int = 5
    """The number of epochs in which beta grows from 0 to 1."""
    min_scale: float = 1e-3
    """The smallest scale of p(z1 | z2); without one the ladder diverges after some epochs."""
    width: int = 200
    num_test: int = 2000
    """The number of test images that are evaluated."""
    num_samples: int = 5000
    """K for log p(x)."""
    compile: bool = True


def normal(*sizes: int, min_scale: float = 0.0) -> DiagonalNormal:
    """A diagonal Normal over a tanh network."""
    *hidden, dim = sizes
    return DiagonalNormal.over(
        lambda outputs: mlp(*hidden, outputs, activation=nn.Tanh), dim, min_scale=min_scale
    )


def up(*sizes: int) -> nn.Module:
    """A tanh network that ends in tanh."""
    return nn.Sequential(mlp(*sizes, activation=nn.Tanh), nn.Tanh())


def build(kind: Kind, pixels: int, width: int, min_scale: float) -> Any:
    """Build a model of a kind; with two layers the networks of the upper one are half as wide."""
    half, quarter = width // 2, width // 4

    def decoder(dim: int) -> Bernoulli:
        return Bernoulli(mlp(dim, width, width, pixels, activation=nn.Tanh))

    if kind == "one":
        encoder = normal(pixels, width, width, quarter)
        return VAE(StandardNormal(quarter), decoder(quarter), encoder)
    prior, below = StandardNormal(quarter), [normal(quarter, half, half, half, min_scale=min_scale)]
    if kind == "two":
        encoders = [normal(pixels, width, width, half), normal(half, half, half, quarter)]
        return HierarchicalVAE(prior, below, decoder(half), encoders)
    climb = [up(pixels, width, width), up(width, half, half)]
    heads = [normal(width, half), normal(half, quarter)]
    return LadderVAE(prior, below, decoder(half), heads, climb)


def train(kind: Kind, vae: Any, data: Images, options: Options, folder: Folder) -> None:
    """Maximise the ELBO, with a warm-up of its KL."""
    set_output_bias(vae.decoder.net, data.mean().clamp(0.001, 0.999).logit())
    optim = torch.optim.Adam(vae.parameters(), lr=options.learning_rate)
    steps = -(-len(data) // options.batch_size)
    loss = Trace_ELBO(beta=linear(max(1, options.warm_up * steps)))
    svi = SVI(
        *(vae.model, vae.guide, optim),
        loss=loss,
        clip_norm=options.clip_norm,
        compile=options.compile,
    )
    fit(
        svi,
        data,
        epochs=options.epochs,
        batch_size=options.batch_size,
        seed=options.seed,
        scheduler=torch.optim.lr_scheduler.CosineAnnealingLR(optim, options.epochs),
        folder=folder.path / kind,
        resume=True,
        progress=options.progress,
    )


def numbers(vae: Any, x: Tensor, log_px: Tensor) -> dict[str, Any]:
    """Return the mean log p(x), and the KL and active units of each layer."""
    again = means_by_site(vae.guide, x)
    means = means_by_site(vae.guide, x)
    kl = kl_by_site(vae.model, vae.guide, x, num_samples=10)
    return {
        "log_px": float(log_px.mean()),
        "kl": {name: float(kl[name].mean()) for name in sorted(kl)},
        "active_units": {name: active_units(means[name], again[name]) for name in sorted(kl)},
    }


def difference(first: Tensor, second: Tensor) -> dict[str, float]:
    """The mean of a paired difference over the data, and its standard error."""
    gain = second - first
    return {"gain": float(gain.mean()), "standard_error": float(gain.std()) / len(gain) ** 0.5}


def main(args: Sequence[str] | None = None) -> None:
    """Train, evaluate and compare the models."""
    with program(Options, args, __doc__) as (options, folder):
        data = load_data(options.data, options.data_dir, pixels="dynamic", validation_size=0)
        x = data.test.all()[: options.num_test]
        log_px: dict[str, Tensor] = {}
        result: dict[str, Any] = {}
        for kind in options.models:
            torch.manual_seed(options.seed)
            vae = build(kind, x.shape[-1], options.width, options.min_scale)
            train(kind, vae, data.train, options, folder)
            log_px[kind] = log_likelihood(
                *(vae.model, vae.guide, x),
                num_samples=options.num_samples,
                compile=options.compile,
            )
            result[kind] = numbers(vae, x, log_px[kind])
            print(kind, result[kind], "published:", PUBLISHED.get(kind))
            if kind != "one" and "one" in log_px:
                result[f"{kind} against one"] = difference(log_px["one"], log_px[kind])
                print(f"{kind} against one:", result[f"{kind} against one"])
        folder.write(result)
        folder.draw("layers", layers({kind: result[kind]["kl"] for kind in options.models}))


if __name__ == "__main__":
    main()
