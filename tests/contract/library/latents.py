"""Programs of tables, counts, channels, codes and diffusion."""

from collections.abc import Callable

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyro_vae import Bernoulli, DiagonalNormal, StandardNormal, mlp
from pyro_vae.families import (
    Codebook,
    NearestCode,
    NearestLevel,
    Noising,
    OneHotCategorical,
    StudentT,
    UniformCodes,
    ZeroInflatedNegativeBinomial,
)
from pyro_vae.inference import all_supports
from pyro_vae.models import MIWAE, SCVI, VQVAE, Diffusion, SparseChannel
from pyro_vae.nets import ChannelsFirst, Symmetric

from ..networks import LATENT, PIXELS
from ..subject import ROWS, Subject, binary, of


def miwae() -> Subject:
    """A row with nothing missing, and rows with much."""
    observed = binary(ROWS, PIXELS).bool()
    observed[0] = True

    def build() -> MIWAE:
        decoder = StudentT(mlp(LATENT, 8, 3 * PIXELS))
        return MIWAE(StandardNormal(LATENT), decoder, DiagonalNormal(mlp(PIXELS, 8, 2 * LATENT)))

    x = torch.linspace(-1, 1, ROWS * PIXELS, dtype=torch.float64).view(ROWS, PIXELS)
    return of(build, x, observed)


def channel() -> Subject:
    """Three taps, whose supports are summed out."""
    supports = all_supports(3)

    def build() -> SparseChannel:
        q_s = OneHotCategorical(mlp(PIXELS, 8, len(supports)))
        q_g = DiagonalNormal(mlp(PIXELS + 3, 8, 6))
        return SparseChannel(torch.randn(PIXELS, 3), supports, q_s, q_g)

    return of(build, enumerated={"s": torch.eye(len(supports), dtype=torch.float64)})


def scvi(known: bool) -> Subject:
    """Counts, with the library size a latent or given."""
    counts = torch.arange(ROWS * PIXELS, dtype=torch.float64).view(ROWS, PIXELS).fmod(5)

    def build() -> SCVI:
        decoder = ZeroInflatedNegativeBinomial.over(
            lambda outputs: mlp(LATENT, 8, outputs), PIXELS, library=True
        )
        q_z, q_l = (DiagonalNormal(mlp(PIXELS, 8, 2 * dim)) for dim in (LATENT, 1))
        return SCVI(StandardNormal(LATENT), decoder, q_z, q_l, library=(2.0, 0.5))

    return of(build, counts, 1 + counts.sum(-1, keepdim=True)) if known else of(build, counts)


class Drift(nn.Module):
    """A denoiser of (z, log SNR), whose scale is between its bounds."""

    def __init__(self) -> None:
        super().__init__()
        self.net = mlp(PIXELS + 1, 8, 2 * PIXELS)

    def forward(self, z: Tensor, log_snr: Tensor) -> dist.Distribution:
        loc, spread = self.net(torch.cat([z, 0.1 * log_snr], -1)).chunk(2, -1)
        return dist.Normal(loc, 0.3 + spread.sigmoid()).to_event(1)


def diffusion(whole: bool) -> Subject:
    """The whole chain of three steps; or one random step, of one, so that nothing is scaled."""

    def build() -> Diffusion:
        noising = Noising(torch.linspace(2, -2, 3 if whole else 2))
        chain = Diffusion(Drift(), NearestLevel(1, 2.0), Symmetric(), noising, PIXELS)
        if not whole:
            chain.model, chain.guide = chain.step_model, chain.step_guide
        return chain

    return of(build, copyable=whole)


def vq_vae() -> Subject:
    """Two positions with four codes, in training with the distance to the codebook."""

    def build() -> VQVAE:
        book = Codebook(4, 3)
        decoder = Bernoulli(nn.Sequential(ChannelsFirst(), mlp(6, 8, PIXELS)))
        return VQVAE(UniformCodes(book, 2), decoder, NearestCode(mlp(PIXELS, 8, 6), book))

    return of(build)


MODELS: dict[str, Callable[[], Subject]] = {
    # name: constructor
    "MIWAE": miwae,
    "scVI": lambda: scvi(False),
    "scVI, known library": lambda: scvi(True),
    "sparse channel": channel,
    "diffusion": lambda: diffusion(True),
    "diffusion, one step": lambda: diffusion(False),
    "VQ-VAE": vq_vae,
}
