"""Counts with scVI's likelihoods (Lopez et al. 2018): recovery of true parameters, and digits.

Counts of several kinds are simulated from a zero-inflated negative binomial with a linear decoder
and a library size for each datum. The same model is fitted to each of several simulations, once
with known library sizes and once with latent ones. The pixels of the digits are counts from 0 to
16; the script computes their log p(x) under each likelihood.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from pyro_vae import (
    SVI,
    VAE,
    Binomial,
    DiagonalNormal,
    StandardNormal,
    Trace_ELBO,
    fit,
    load_data,
    log_likelihood,
    mlp,
)
from pyro_vae.experiments.programs import ProgramOptions, program
from pyro_vae.families import (
    NegativeBinomial,
    ZeroInflatedDistribution,
    ZeroInflatedNegativeBinomial,
)
from pyro_vae.models import SCVI
from pyro_vae.nets import Log1p
from pyro_vae.plots import recovered
from pyro_vae.training import seeded

LIBRARY = (5.5, 0.4)
"""Mean and standard deviation of the log library size."""


@dataclass(frozen=True)
class Options(ProgramOptions):
    """The options of a run."""

    epochs: int = 60
    kinds: int = 20
    """The number of kinds that are counted, D."""
    latent_dim: int = 2
    num_data: int = 3000
    num_simulations: int = 5
    digit_epochs: int = 60
    num_samples: int = 1000
    """K for log p(x) of the digits."""
    hidden: int = 64
    batch_size: int = 100
    lr: float = 5e-3


@dataclass(frozen=True)
class Truth:
    """The true parameters of the simulations."""

    weight: Tensor
    bias: Tensor
    log_theta: Tensor
    gate: Tensor

    def simulate(self, number: int) -> tuple[Tensor, Tensor]:
        """Draw counts (N, D) and library sizes (N, 1)."""
        z = torch.randn(number, self.weight.shape[1])
        library = (LIBRARY[0] + LIBRARY[1] * torch.randn(number, 1)).exp()
        log_mean = (z @ self.weight.T + self.bias).log_softmax(-1) + library.log()
        counts = ZeroInflatedDistribution(log_mean, self.log_theta, self.gate.expand_as(log_mean))
        return counts.sample(), library

    def parameters(self, z: Tensor) -> dict[str, Tensor]:
        """The log of theta, the log of the mean share, and the probability of an extra zero."""
        shares = (z @ self.weight.T + self.bias).softmax(-1).mean(0)
        return {
            "log theta": self.log_theta,
            "log share": shares.log(),
            "dropout": self.gate.sigmoid(),
        }


def main(args: Sequence[str] | None = None) -> None:
    """Fit every simulation twice, then fit the digits with three likelihoods."""
    with program(Options, args, __doc__) as (options, folder):
        with seeded(options.seed):
            truth = draw_truth(options)
            z = torch.randn(20_000, options.latent_dim)
        true = truth.parameters(z)
        result: dict[str, float] = {}
        figures = {}
        for known in (True, False):
            name = "library known" if known else "library latent"
            fitted = [
                fit_simulation(options, truth, z, seed, known, folder.path / f"{name}-{seed}")
                for seed in range(options.num_simulations)
            ]
            estimates = {key: torch.stack([each[key] for each in fitted]) for key in true}
            result |= {f"{name}, {k}": v for k, v in summary(true, estimates).items()}
            figures[name] = recovered(true, estimates)
        folder.write({**result, **digits(options, folder.path)})
        for name, figure in figures.items():
            folder.draw(name.replace(" ", "-"), figure)


def draw_truth(options: Options) -> Truth:
    """Draw the true parameters of all kinds."""
    D = options.kinds
    return Truth(
        0.5 * torch.randn(D, options.latent_dim),
        0.7 * torch.randn(D),
        torch.empty(D).uniform_(0.0, 2.0),
        torch.empty(D).uniform_(0.05, 0.35).logit(),
    )


def summary(true: dict[str, Tensor], estimates: dict[str, Tensor]) -> dict[str, float]:
    """Root mean squared error, mean error and its standard error of each group of parameters."""
    result = {}
    for name, values in estimates.items():
        gaps = values - true[name]
        means = gaps.mean(-1)  # one for each simulation
        result[f"{name}, rms error"] = gaps.square().mean().sqrt().item()
        result[f"{name}, mean error"] = means.mean().item()
        result[f"{name}, its standard error"] = (means.std() / len(means) ** 0.5).item()
    return result


def fit_simulation(
    options: Options, truth: Truth, z: Tensor, seed: int, known: bool, folder: Path
) -> dict[str, Tensor]:
    """Return the estimated parameters, named and ordered like the true ones."""
    with seeded(options.seed, seed):
        x, library = truth.simulate(options.num_data)
        scvi, decoder = build(options)
    train(options, scvi, (x, library) if known else x, options.epochs, folder)
    with torch.no_grad():
        log_mean, gate = decoder.parameter_pair(z)
        shares = log_mean.softmax(-1).mean(0)
        return {
            "log theta": decoder.log_theta.detach(),
            "log share": shares.log(),
            "dropout": gate.sigmoid().mean(0),
        }


def build(options: Options) -> tuple[SCVI, ZeroInflatedNegativeBinomial]:
    """Build a model of the family of the simulations, with encoders of log(1 + x)."""
    D, hidden, dim = options.kinds, options.hidden, options.latent_dim
    decoder = ZeroInflatedNegativeBinomial.over(
        lambda outputs: nn.Linear(dim, outputs), D, library=True
    )
    encoder = DiagonalNormal(nn.Sequential(Log1p(), mlp(D, hidden, 2 * dim)))
    library_encoder = DiagonalNormal(nn.Sequential(Log1p(), mlp(D, hidden, 2)))
    return SCVI(StandardNormal(dim), decoder, encoder, library_encoder, LIBRARY), decoder


def train(options: Options, module: SCVI | VAE, data: object, epochs: int, folder: Path) -> None:
    """Train by Adam with a learning rate that decreases to zero."""
    adam = torch.optim.Adam(module.parameters(), lr=options.lr)
    fit(
        *(SVI(module.model, module.guide, adam, loss=Trace_ELBO()), data),
        epochs=epochs,
        batch_size=options.batch_size,
        seed=options.seed,
        scheduler=torch.optim.lr_scheduler.CosineAnnealingLR(adam, epochs),
        folder=folder,
        resume=True,
        progress=options.progress,
    )


def digits(options: Options, folder: Path) -> dict[str, float]:
    """Return log p(x) of the test digits under each likelihood, in nats per digit."""
    data = load_data("digits")
    result = {}
    for family in (Binomial, NegativeBinomial, ZeroInflatedNegativeBinomial):
        total = {"total_count": 16} if family is Binomial else {}
        with seeded(options.seed):
            decoder = family.over(lambda outputs: mlp(8, 128, outputs), 64, **total)
            encoder = DiagonalNormal(nn.Sequential(Log1p(), mlp(64, 128, 16)))
            vae = VAE(StandardNormal(8), decoder, encoder)
        train(options, vae, data.train, options.digit_epochs, folder / family.__name__)
        with seeded(options.seed):
            log_px = log_likelihood(
                *(vae.model, vae.guide, data.test.all()), num_samples=options.num_samples
            )
        result[f"digits, {family.__name__}"] = log_px.mean().item()
    return result


if __name__ == "__main__":
    main()
