"""The graphical models of ``pyro_vae.models``, small: a new one is one entry of ``MODELS``."""

from collections.abc import Callable

import torch

from pyro_vae import Bernoulli, DiagonalNormal, StandardNormal, mlp
from pyro_vae.families import OneHotCategorical, UniformOneHot
from pyro_vae.models import CVAE, M2, StackedM2

from .networks import CLASSES, LATENT, PIXELS
from .subject import ROWS, Subject, binary, of


def gaussian(size_in: int) -> DiagonalNormal:
    """A diagonal normal of the size of the latents."""
    return DiagonalNormal(mlp(size_in, 8, 2 * LATENT))


def one_hot() -> torch.Tensor:
    """All labels, one after the other."""
    return torch.eye(CLASSES, dtype=torch.float64)[torch.arange(ROWS) % CLASSES]


def m2(labelled: bool) -> Subject:
    """The semi-supervised VAE."""

    def build() -> M2:
        decoder, encoder = Bernoulli(mlp(CLASSES + LATENT, 8, PIXELS)), gaussian(PIXELS + CLASSES)
        classifier = OneHotCategorical(mlp(PIXELS, 8, CLASSES))
        priors = UniformOneHot(CLASSES), StandardNormal(LATENT)
        return M2(*priors, decoder, classifier, encoder)

    if labelled:
        return of(build, binary(ROWS, PIXELS), one_hot())
    return of(build, binary(ROWS, PIXELS), enumerated={"y": torch.eye(CLASSES).double()})


def stacked_m2(labelled: bool) -> Subject:
    """M1 + M2."""

    def build() -> StackedM2:
        return StackedM2(
            *(UniformOneHot(CLASSES), StandardNormal(LATENT)),
            *(gaussian(CLASSES + LATENT), Bernoulli(mlp(LATENT, 8, PIXELS))),
            gaussian(PIXELS),
            OneHotCategorical(mlp(LATENT, 8, CLASSES)),
            gaussian(LATENT + CLASSES),
        )

    if labelled:
        return of(build, binary(ROWS, PIXELS), one_hot())
    return of(build, binary(ROWS, PIXELS), enumerated={"y": torch.eye(CLASSES).double()})


def cvae() -> Subject:
    """A conditional VAE: two pixels are given, four predicted."""
    x, y = binary(ROWS, PIXELS).split([2, PIXELS - 2], -1)

    def build() -> CVAE:
        hidden = PIXELS - 2
        decoder, baseline = mlp(PIXELS + LATENT, 8, hidden), mlp(2, 8, hidden)
        encoder = gaussian(PIXELS + hidden)
        return CVAE(gaussian(PIXELS), Bernoulli(decoder), encoder, Bernoulli(baseline))

    return of(build, x, y)


MODELS: dict[str, Callable[[], Subject]] = {
    "M2 of the library, labelled": lambda: m2(True),
    "M2 of the library, y enumerated": lambda: m2(False),
    "M1 + M2, labelled": lambda: stacked_m2(True),
    "M1 + M2, y enumerated": lambda: stacked_m2(False),
    "CVAE": cvae,
from torch import nn

from pyro_vae import Bernoulli, DiagonalNormal, StandardNormal, mlp
from pyro_vae.families import MixturePrior
from pyro_vae.models import GMVAE, HierarchicalVAE, LadderVAE

from .networks import CLASSES, LATENT, PIXELS
from .subject import Subject, of


def normal(size_in: int, size_out: int = LATENT) -> DiagonalNormal:
    """A diagonal Normal given a parent."""
    return DiagonalNormal(nn.Linear(size_in, 2 * size_out))


def gmvae() -> GMVAE:
    """Three clusters."""
    return GMVAE(MixturePrior(LATENT, CLASSES), Bernoulli(mlp(LATENT, 8, PIXELS)), normal(PIXELS))


def hierarchical() -> HierarchicalVAE:
    """Three layers, of 3, 2 and 1 dimensions."""
    layers = [normal(2, 3), normal(1, 2)]
    encoders = [normal(PIXELS, 3), normal(3, 2), normal(2, 1)]
    return HierarchicalVAE(StandardNormal(1), layers, Bernoulli(mlp(3, 8, PIXELS)), encoders)


def ladder() -> LadderVAE:
    """Two layers, of 3 and 2 dimensions."""
    up = [mlp(PIXELS, 8, 5), mlp(5, 8, 4)]
    decoder = Bernoulli(mlp(3, 8, PIXELS))
    return LadderVAE(StandardNormal(2), [normal(2, 3)], decoder, [normal(5, 3), normal(4)], up)


MODELS: dict[str, Callable[[], Subject]] = {
    "GMVAE": lambda: of(gmvae, mixture={"y": torch.arange(CLASSES)}),
    "hierarchical VAE": lambda: of(hierarchical),
    "ladder VAE": lambda: of(ladder),
from torch import nn

from pyro_vae import Bernoulli, DiagonalNormal, StandardNormal, mlp
from pyro_vae.families import Categorical
from pyro_vae.models import DeepMarkovModel, SequenceVAE
from pyro_vae.nets import FutureGRU, GatedTransition, RecurrentDecoder, RecurrentEncoder

from .subject import ROWS, Subject, binary, of

TEXTS = torch.tensor([[2, 3, 4], [4, 1, 0], [3, 0, 0], [1, 4, 2]])


def sequence_vae() -> SequenceVAE:
    """Texts of four characters and an end."""
    decoder = RecurrentDecoder(5, 2, embedding=3, hidden=6)
    encoder = DiagonalNormal(RecurrentEncoder(5, 4, embedding=3, hidden=6))
    return SequenceVAE(StandardNormal(2), decoder, Categorical(nn.Linear(6, 5)), encoder)


def deep_markov_model() -> DeepMarkovModel:
    """Sequences of four keys."""
    transition = DiagonalNormal(GatedTransition(2, hidden=6))
    posterior = DiagonalNormal(nn.Linear(6, 4))
    emission = Bernoulli(mlp(2, 6, 4))
    return DeepMarkovModel(transition, emission, FutureGRU(4, 6), posterior, dim=2, hidden=6)


MODELS: dict[str, Callable[[], Subject]] = {
    "SequenceVAE": lambda: of(sequence_vae, TEXTS),
    "DeepMarkovModel": lambda: of(
        deep_markov_model, binary(ROWS, 3, 4), torch.tensor([3, 1, 2, 3])
    ),
from pyro_vae import DiagonalNormal, StandardNormal, mlp
from pyro_vae.families import OneHotCategorical, StudentT, ZeroInflatedNegativeBinomial
from pyro_vae.inference import all_supports
from pyro_vae.models import MIWAE, SCVI, SparseChannel

from .networks import LATENT, PIXELS
from .subject import ROWS, Subject, binary, of


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
