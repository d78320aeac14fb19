"""A VAE whose latents are vectors of a codebook."""

import pyro
from pyro.nn import pyro_method
from torch import Tensor, nn

from ..programs.checks import at_least
from .vae import VAE


class VQVAE(VAE):
    """p(k) p(x | e_k), and q(k | x) with all mass at the codes k nearest to the encoder's output.

    ``prior()`` is p(k): uniform while encoder and decoder are trained, and learned afterwards.
    ``decoder(z)`` is p(x | z) given the vectors z = e_k, (B, N, E), and ``encoder(x)`` is a
    :class:`pyro_vae.families.NearestCode` with the prior's codebook. q has all its mass at one
    code, so log q = 0, and log p(x | e_k) + log p(k) is a lower bound of log p(x) for any prior.
    The uniform prior gives a rate of N log K nats. In ``train`` mode the guide has one more factor,
    the squared distance between encoder and codebook; its gradient for the encoder has the weight
    ``commitment``. In ``eval`` mode there is no such factor, and the ELBO is a bound.

    Source: van den Oord, Vinyals & Kavukcuoglu, *Neural Discrete Representation Learning*, 2017.

    Raises ``ValueError`` for a negative commitment.

    >>> from pyro_vae import Bernoulli, Trace_ELBO
    >>> from pyro_vae.families import Codebook, NearestCode, UniformCodes
    >>> from pyro_vae.nets import code_decoder, code_encoder
    >>> book, shape = Codebook(16, 3), (1, 8, 8)
    >>> encoder = NearestCode(code_encoder(shape, dim=3), book)
    >>> vq = VQVAE(UniformCodes(book, 4), Bernoulli(code_decoder(3, shape)), encoder)
    >>> Trace_ELBO().estimate(vq.model, vq.guide, x).loss.shape
    torch.Size([])
    """

    def __init__(
        self, prior: nn.Module, decoder: nn.Module, encoder: nn.Module, commitment: float = 0.25
    ) -> None:
        super().__init__(prior, decoder, encoder)
        at_least(0, commitment=commitment)
        self.commitment = commitment

    @pyro_method
    def guide(self, x: Tensor) -> None:
        """q(k | x), and in ``train`` mode the distance between encoder and codebook."""
        with pyro.plate("data", len(x)):
            q = self.encoder(x)
            pyro.sample("z", q)
            if self.training:
                pyro.factor("distance", q.cost(self.commitment), has_rsample=True)
