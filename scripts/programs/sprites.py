"""Disentanglement of the known factors of sprites, for weights beta of the KL and several seeds."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.optim import Adam

from pyro_vae import (
    SVI,
    VAE,
    Bernoulli,
    DiagonalNormal,
    StandardNormal,
    TraceMeanField_ELBO,
    fit,
    mlp,
)
from pyro_vae.data import FACTORS, Sprites, sprites
from pyro_vae.evaluation import FactorInformation, factor_information
from pyro_vae.experiments.programs import ProgramOptions, program
from pyro_vae.plots import factor_maps, images, traversal
from pyro_vae.training import Record, seeded


@dataclass(frozen=True)
class Options(ProgramOptions):
    """The options of a run."""

    epochs: int = 60
    betas: tuple[float, ...] = (1.0, 4.0)
    seeds: tuple[int, ...] = (0, 1, 2)
    latent_dim: int = 10
    hidden: int = 200
    lr: float = 1e-3
    size: int = 24
    """The number of pixels of a side."""
    places: int = 10
    """The number of values of x, and of y."""
    num_draws: int = 2000
    """The number of draws for the mutual information."""
    compile: bool = True


def main(args: Sequence[str] | None = None) -> None:
    """Train with each beta and seed; write the mutual information gaps."""
    with program(Options, args, __doc__) as (options, folder):
        data = sprites(options.size, places=options.places)
        table = []
        maps = {}
        rows = {}
        for beta in options.betas:
            for seed in options.seeds:
                path = folder.path / f"beta{beta:g}-seed{seed}"
                vae, last = train(options, data, beta, seed, path)
                found = measure(options, vae, data)
                if seed == options.seeds[0]:
                    maps[f"beta {beta:g}"] = found
                    rows[f"beta{beta:g}"] = vae
                gaps = dict(zip(FACTORS, found.gaps.tolist(), strict=True))
                terms = {"elbo": last.train_elbo, "rate": last.train_kl}
                table.append({"beta": beta, "seed": seed, "mig": found.mig, **terms, "gaps": gaps})
        folder.write({**summary(options, table), "runs": table})
        folder.draw("factors", factor_maps(maps, FACTORS))
        x = data.images.all()
        shown = torch.linspace(0, len(x) - 1, 60).long()
        folder.draw("sprites", images(x[shown], data.images.shape, columns=15, title="sprites"))
        for name, vae in rows.items():
            folder.draw(f"traversal_{name}", traversal(vae, x[len(x) // 2], data.images.shape))


def train(
    options: Options, data: Sprites, beta: float, seed: int, folder: Path
) -> tuple[VAE, Record]:
    """Train a VAE; return it and its last record."""
    num_pixels = data.images.values.shape[1]
    hidden = (options.hidden, options.hidden)
    with seeded(seed):
        vae = VAE(
            StandardNormal(options.latent_dim),
            Bernoulli(mlp(options.latent_dim, *hidden, num_pixels)),
            DiagonalNormal(mlp(num_pixels, *hidden, 2 * options.latent_dim)),
        )
    svi = SVI(
        *(vae.model, vae.guide, Adam(vae.parameters(), options.lr)),
        loss=TraceMeanField_ELBO(beta=beta),
        compile=options.compile,
    )
    history = fit(
        *(svi, data.images),
        epochs=options.epochs,
        batch_size=100,
        seed=seed,
        folder=folder,
        resume=True,
        progress=options.progress,
    )
    return vae, history[-1]


def measure(options: Options, vae: VAE, data: Sprites) -> FactorInformation:
    """Estimate the mutual information of each latent dimension and each factor."""
    with seeded(options.seed):
        x = data.images.all()
        return factor_information(vae.guide, x, factors=data.factors, num_draws=options.num_draws)


def summary(options: Options, table: Sequence[dict[str, object]]) -> dict[str, float]:
    """Mean and standard deviation over the seeds of the mutual information gap, for each beta."""
    out = {}
    for beta in options.betas:
        migs = torch.tensor([row["mig"] for row in table if row["beta"] == beta])
        out[f"MIG, beta {beta:g}"] = float(migs.mean())
        if len(migs) > 1:
            out[f"standard deviation, beta {beta:g}"] = float(migs.std())
    return out


if __name__ == "__main__":
    main()
