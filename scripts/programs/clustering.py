"""Cluster images without labels by a mixture of Gaussians in latent space.

Labels are used only at the end, for the accuracy of the best one-to-one matching of clusters and
classes. The script reports the accuracy of each seed and their mean.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

import torch
from sklearn.mixture import GaussianMixture
from torch import Tensor

from pyro_vae import (
    SVI,
    VAE,
    Bernoulli,
    DiagonalNormal,
    StandardNormal,
    Trace_ELBO,
    fit,
    iter_epochs,
    linear,
    load_data,
    mlp,
)
from pyro_vae.data import Images, Splits
from pyro_vae.evaluation import cluster_accuracy
from pyro_vae.experiments.programs import Folder, ProgramOptions, program
from pyro_vae.families import FullRankMixturePrior
from pyro_vae.models import GMVAE
from pyro_vae.plots import clusters

PUBLISHED = "VaDE 0.9446 (best, after pretraining); reimplementations without it 0.716 +- 0.044"


@dataclass(frozen=True)
class Options(ProgramOptions):
    """The options."""

    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """The seeds, one run for each; ``seed`` is not used."""
    data: str = "mnist"
    """The data set; its pixels are drawn again in each batch."""
    epochs: int = 14
    pretrain: int = 0
    """The epochs of a plain VAE, with ``beta_start``, before EM fits the initial mixture."""
    batch_size: int = 256
    learning_rate: float = 2e-3
    prior_learning_rate: float = 1e-2
    components: int = 10
    dim: int = 10
    hidden: int = 500
    beta_start: float = 0.05
    """The weight beta of the KL at the start."""
    beta_stop: float = 0.3
    """The weight beta at the end; below 1 the posteriors stay narrow and the clusters separate."""
    warm_up: int = 10
    """The number of epochs in which beta grows."""
    compile: bool = True


def build(options: Options, pixels: int) -> tuple[GMVAE, FullRankMixturePrior]:
    """Build the VAE with networks pixels-hidden-hidden-dim, and its prior with equal p(y)."""
    H, D = options.hidden, options.dim
    prior = FullRankMixturePrior(D, options.components)
    prior.logits.requires_grad_(False)
    encoder = DiagonalNormal.over(lambda outputs: mlp(pixels, H, H, outputs), D)
    vae = GMVAE(prior, Bernoulli(mlp(D, H, H, pixels)), encoder)
    return vae, prior


def pretrain(
    vae: GMVAE, data: Images, options: Options, seed: int, folder: Folder
) -> GaussianMixture:
    """Train the networks with p(z) = N(0, I); return a mixture that EM fits to draws of q."""
    plain = VAE(StandardNormal(options.dim), vae.decoder, vae.encoder)
    optim = torch.optim.Adam(plain.parameters(), lr=options.learning_rate)
    loss = Trace_ELBO(beta=options.beta_start)
    svi = SVI(plain.model, plain.guide, optim, loss=loss, compile=options.compile)
    fit(
        *(svi, data),
        epochs=options.pretrain,
        batch_size=options.batch_size,
        seed=seed,
        folder=folder.path / f"seed_{seed}_plain",
        resume=True,
        progress=options.progress,
    )
    z = plain.encode(data.batch(torch.arange(min(len(data), 20000))), mean=False)
    em = GaussianMixture(options.components, n_init=3, reg_covar=1e-3, random_state=seed)
    return em.fit(z.numpy())


@torch.no_grad()
def set_prior(prior: Any, loc: Tensor, covariance: Tensor) -> None:
    """Set means (C, D) and covariances (C, D, D) of a :class:`FullRankMixturePrior`."""
    tril = torch.linalg.cholesky(covariance)
    scale = tril.diagonal(dim1=-2, dim2=-1)
    prior.loc.copy_(loc)
    prior.log_scale.copy_(scale.log())
    prior.below.copy_((tril / scale.unsqueeze(-1)).tril(-1))


def train(vae: GMVAE, data: Splits, options: Options, seed: int, folder: Folder) -> float:
    """Maximise the ELBO with a growing beta; print and return the accuracy on the test set."""
    networks = [*vae.decoder.parameters(), *vae.encoder.parameters()]
    prior = [p for p in vae.prior.parameters() if p.requires_grad]
    groups = [
        {"params": networks, "lr": options.learning_rate},
        {"params": prior, "lr": options.prior_learning_rate},
    ]
    steps = options.warm_up * -(-len(data.train) // options.batch_size)
    loss = Trace_ELBO(beta=linear(max(1, steps), options.beta_start, options.beta_stop))
    optim = torch.optim.Adam(groups)
    svi = SVI(vae.collapsed, vae.guide, optim, loss=loss, compile=options.compile)
    for record in iter_epochs(
        *(svi, data.train),
        epochs=options.epochs,
        batch_size=options.batch_size,
        seed=seed,
        folder=folder.path / f"seed_{seed}",
        resume=True,
        progress=options.progress,
    ):
        found = accuracy(vae, data.test)
        print(
            f"seed {seed} epoch {record.epoch} ELBO {record.train_elbo:.1f} accuracy {found:.4f}",
            flush=True,
        )
    return accuracy(vae, data.test)


def accuracy(vae: GMVAE, data: Images) -> float:
    """Return the accuracy of the most probable cluster of each image."""
    if data.labels is None:
        raise ValueError("expected labels to count with, got a data set without them")
    return cluster_accuracy(vae.cluster(data.all()).argmax(-1), data.labels)


def main(args: Sequence[str] | None = None) -> None:
    """Make one run for each seed."""
    with program(Options, args, __doc__) as (options, folder):
        data = load_data(options.data, options.data_dir, pixels="dynamic", validation_size=0)
        found = {}
        for seed in options.seeds:
            torch.manual_seed(seed)
            vae, prior = build(options, data.train.values.shape[-1])
            if options.pretrain:
                em = pretrain(vae, data.train, options, seed, folder)
                set_prior(prior, torch.tensor(em.means_), torch.tensor(em.covariances_))
            found[str(seed)] = train(vae, data, options, seed, folder)
        values = [*found.values()]
        folder.write(
            {
                "mean": mean(values),
                "standard_deviation": stdev(values) if len(values) > 1 else None,
                "lowest": min(values),
                "highest": max(values),
                "published": PUBLISHED,
                "accuracy": found,
            }
        )
        folder.draw("clusters", clusters(vae, data.test.shape))


if __name__ == "__main__":
    main()
