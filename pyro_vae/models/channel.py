"""A linear channel with sparse taps, observed in noise."""

import math

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule, pyro_method
from torch import Tensor, nn


class SparseChannel(PyroModule):
    """p(s) p(g) p(y | s, g): y = A h + n, with sparse taps h = s g; q(s | y) q(g | y, s).

    s_l ~ Bernoulli(rate),  g_l ~ N(0, tap_scale^2),  n ~ N(0, noise_scale^2 I).

    Shapes: y is (B, M), ``A`` is (M, L), g is (B, L). The site "s" is a one-hot vector: it chooses
    one of the 2^L rows of ``supports`` (2^L, L). The guide marks it to be summed out.
    ``support_encoder(y)`` is q(s | y), a categorical over the supports, and
    ``tap_encoder(y, bits)`` is q(g | y, s), given the L bits of the support. The rate and the two
    scales are trained with the guide (variational EM). :func:`pyro_vae.inference.exact_posterior`
    computes the posterior without networks.

    Source: the Bernoulli-Gaussian prior of Soussen et al., *From Bernoulli-Gaussian Deconvolution
    to Sparse Signal Restoration*, 2011.

    Raises ``ValueError`` for a rate outside (0, 1) or a scale that is not positive.

    >>> from pyro_vae import DiagonalNormal, Trace_ELBO, mlp
    >>> from pyro_vae.families import OneHotCategorical
    >>> supports = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 3)
    >>> q_s, q_g = OneHotCategorical(mlp(4, 8, 8)), DiagonalNormal(mlp(4 + 3, 8, 6))
    >>> channel = SparseChannel(torch.randn(4, 3), supports, q_s, q_g)
    >>> Trace_ELBO().estimate(channel.model, channel.guide, torch.randn(5, 4)).loss.shape
    torch.Size([])
    """

    A: Tensor
    supports: Tensor

    def __init__(
        self,
        A: Tensor,
        supports: Tensor,
        support_encoder: nn.Module,
        tap_encoder: nn.Module,
        *,
        rate: float = 0.5,
        tap_scale: float = 1.0,
        noise_scale: float = 1.0,
    ) -> None:
        super().__init__()
        if not (0 < rate < 1 and tap_scale > 0 and noise_scale > 0):
            raise ValueError(
                "expected a rate in (0, 1) and positive scales, "
                f"got {rate}, {tap_scale} and {noise_scale}"
            )
        self.register_buffer("A", A)
        self.register_buffer("supports", supports)
        self.support_encoder = support_encoder
        self.tap_encoder = tap_encoder
        self.logit_rate = nn.Parameter(torch.tensor(math.log(rate / (1 - rate))))
        self.log_tap_scale = nn.Parameter(torch.tensor(math.log(tap_scale)))
        self.log_noise_scale = nn.Parameter(torch.tensor(math.log(noise_scale)))

    @pyro_method
    def model(self, y: Tensor) -> None:
        """p(s) p(g) p(y | s, g)."""
        taps = self.A.new_zeros(self.A.shape[1])
        with pyro.plate("data", len(y)):
            logits = self.logit_rate * self.supports.sum(-1)  # the sum of the bits' log odds
            s = pyro.sample("s", dist.OneHotCategorical(logits=logits))
            g = pyro.sample("g", dist.Normal(taps, self.log_tap_scale.exp()).to_event(1))
            h = (s @ self.supports) * g
            noise = self.log_noise_scale.exp()
            pyro.sample("y", dist.Normal(h @ self.A.T, noise).to_event(1), obs=y)

    @pyro_method
    def guide(self, y: Tensor) -> None:
        """q(s | y) q(g | y, s)."""
        with pyro.plate("data", len(y)):
            s = pyro.sample("s", self.support_encoder(y), infer={"enumerate": "parallel"})
            pyro.sample("g", self.tap_encoder(y, s @ self.supports))
