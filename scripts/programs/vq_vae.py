"""VQ-VAE (van den Oord et al. 2017) on binary images, with a learned prior over its codes.

Encoder, decoder and codebook are trained first, with a uniform prior. Then a recurrent prior is
trained on the codes of the training images. Both give a lower bound of log p(x) in nats per image,
-distortion - rate. The perplexity is exp(entropy) of the frequencies of the codes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pyro
import torch
from torch import Tensor

from pyro_vae import SVI, Bernoulli, Trace_ELBO, fit, iter_epochs, load_data
from pyro_vae.data import Images, Splits
from pyro_vae.experiments.programs import ProgramOptions, program
from pyro_vae.families import AutoregressiveCodes, Codebook, NearestCode, UniformCodes
from pyro_vae.models import VQVAE
from pyro_vae.nets import RecurrentLogits, code_decoder, code_encoder
from pyro_vae.plots import images, reconstructions
from pyro_vae.training import seeded


@dataclass(frozen=True)
class Options(ProgramOptions):
    """The options of a run."""

    epochs: int = 8
    prior_epochs: int = 5
    dataset: str = "mnist"
    num_codes: int = 128
    code_dim: int = 16
    hidden: int = 64
    prior_hidden: int = 192
    commitment: float = 0.25
    batch_size: int = 128
    lr: float = 2e-3
    prior_lr: float = 3e-3


def main(args: Sequence[str] | None = None) -> None:
    """Train in two stages; write both bounds and the use of the codes; draw pictures."""
    with program(Options, args, __doc__) as (options, folder):
        data = load_data(options.dataset, options.data_dir, pixels="dynamic")
        shape, test = data.train.shape, data.test.all()
        book = Codebook(options.num_codes, options.code_dim)
        vq = VQVAE(
            UniformCodes(book, shape[1] * shape[2] // 16),
            Bernoulli(code_decoder(options.code_dim, shape, options.hidden)),
            NearestCode(code_encoder(shape, options.code_dim, options.hidden), book),
            options.commitment,
        )
        train_codes(options, vq, book, data.train, folder.path / "codes")
        vq.eval()
        uniform = {**terms(vq, test), **usage(vq, book, test)}
        pictures = {"uniform": draw(vq, options.seed)}
        vq.prior = train_prior(options, vq, book, data, folder.path / "prior")
        vq.eval()
        learned = terms(vq, test)
        pictures["learned"] = draw(vq, options.seed)
        folder.write(
            {
                **uniform,
                "rate, learned prior": learned["rate"],
                "bound, learned prior": learned["bound"],
                "bits per dimension": -learned["bound"] / (math.log(2) * test.shape[1]),
            }
        )
        for name, x in pictures.items():
            folder.draw(f"samples-{name}", images(x, shape, title=f"{name} prior, E[x | z]"))
        folder.draw("reconstructions", reconstructions(vq, test[:10], shape))


def train_codes(options: Options, vq: VQVAE, book: Codebook, train: Images, folder: object) -> None:
    """Stage one: train all networks; restart unused codes in the first two thirds of the epochs."""
    adam = torch.optim.Adam(vq.parameters(), lr=options.lr)
    epochs = iter_epochs(
        *(SVI(vq.model, vq.guide, adam, loss=Trace_ELBO()), train),
        epochs=options.epochs,
        batch_size=options.batch_size,
        seed=options.seed,
        scheduler=torch.optim.lr_scheduler.CosineAnnealingLR(adam, options.epochs),
        folder=str(folder),
        resume=True,
        progress=options.progress,
    )
    for record in epochs:
        if 3 * record.epoch < 2 * options.epochs:
            vq.eval()
            with torch.no_grad(), seeded(options.seed, record.epoch):
                book.restart(vq.encoder(train.subset(slice(2000)).all()).h.flatten(0, 1))
            vq.train()


def train_prior(
    options: Options, vq: VQVAE, book: Codebook, data: Splits, folder: object
) -> AutoregressiveCodes:
    """Stage two: train the prior by maximum likelihood of the codes, without latents."""
    dim, width = options.code_dim, data.train.shape[2] // 4
    net = RecurrentLogits(2 * dim, options.prior_hidden, options.num_codes)
    prior = AutoregressiveCodes(book, net, data.train.shape[1] // 4 * width, width)

    def model(z: Tensor) -> None:
        with pyro.plate("data", len(z)):
            pyro.sample("z", prior(), obs=z)

    def guide(z: Tensor) -> None:
        pass

    adam = torch.optim.Adam(net.parameters(), lr=options.prior_lr)
    train, validation = (vectors(vq, part) for part in (data.train, data.validation))
    fit(
        *(SVI(model, guide, adam, loss=Trace_ELBO()), train, validation),
        epochs=options.prior_epochs,
        batch_size=options.batch_size,
        seed=options.seed,
        scheduler=torch.optim.lr_scheduler.CosineAnnealingLR(adam, options.prior_epochs),
        folder=str(folder),
        resume=True,
        progress=options.progress,
    )
    return prior


@torch.no_grad()
def vectors(vq: VQVAE, data: Images) -> Tensor:
    """Return the code vectors of the images, with pixels drawn once, (N, positions, E)."""
    rows = torch.arange(len(data)).split(1000)
    return torch.cat([vq.encoder(data.batch(index)).mean for index in rows])


@torch.no_grad()
def terms(vq: VQVAE, x: Tensor) -> dict[str, float]:
    """Return the bound and its two terms in nats per image; they are deterministic."""
    estimates = [Trace_ELBO().estimate(vq.model, vq.guide, rows) for rows in x.split(1000)]
    bound = -sum(estimate.loss.item() for estimate in estimates) / len(x)
    rate = sum(e.kl.item() for e in estimates if e.kl is not None) / len(x)
    return {"bound": bound, "distortion": -bound - rate, "rate": rate}


@torch.no_grad()
def usage(vq: VQVAE, book: Codebook, x: Tensor) -> dict[str, float]:
    """Return the number of codes that the images use, and their perplexity."""
    codes = torch.cat([vq.encoder(rows).codes.flatten() for rows in x.split(1000)])
    share = torch.bincount(codes, minlength=len(book.vectors)) / len(codes)
    entropy = -torch.special.xlogy(share, share).sum()
    return {"codes used": int((share > 0).sum()), "perplexity": entropy.exp().item()}


def draw(vq: VQVAE, seed: int) -> Tensor:
    """Return E[x | z] for 64 samples z of the prior."""
    with seeded(seed, 1):
        return vq.sample(64, mean=True)


if __name__ == "__main__":
    main()
