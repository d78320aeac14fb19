"""Programs with labels and conditions."""

from collections.abc import Callable

import torch

from pyro_vae import Bernoulli, DiagonalNormal, StandardNormal, mlp
from pyro_vae.families import OneHotCategorical, UniformOneHot
from pyro_vae.models import CVAE, M2, StackedM2

from ..networks import CLASSES, LATENT, PIXELS
from ..subject import ROWS, Subject, binary, of


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
}
