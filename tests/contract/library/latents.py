"""Programs of tables, counts, channels and codes."""

from collections.abc import Callable

import torch

from pyro_vae import DiagonalNormal, StandardNormal, mlp
from pyro_vae.families import OneHotCategorical, StudentT, ZeroInflatedNegativeBinomial
from pyro_vae.inference import all_supports
from pyro_vae.models import MIWAE, SCVI, SparseChannel

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


MODELS: dict[str, Callable[[], Subject]] = {
    # name: constructor
    "MIWAE": miwae,
    "scVI": lambda: scvi(False),
    "scVI, known library": lambda: scvi(True),
    "sparse channel": channel,
}
