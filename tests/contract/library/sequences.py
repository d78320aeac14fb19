"""Programs of sequences."""

from collections.abc import Callable

import torch
from torch import nn

from pyro_vae import Bernoulli, DiagonalNormal, StandardNormal, mlp
from pyro_vae.families import Categorical
from pyro_vae.models import DeepMarkovModel, SequenceVAE
from pyro_vae.nets import FutureGRU, GatedTransition, RecurrentDecoder, RecurrentEncoder

from ..subject import ROWS, Subject, binary, of

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
}
