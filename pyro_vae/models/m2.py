"""The semi-supervised VAE: a label y that is observed for some data and summed out for others."""

import pyro
import torch
from pyro.nn import PyroModule, pyro_method
from torch import Tensor, nn

from ..programs.checks import at_least


class M2(PyroModule):
    """The semi-supervised VAE M2: p(y) p(z) p(x | y, z), with q(y | x) q(z | x, y).

    ``prior_y()`` is p(y), ``prior_z()`` is p(z), ``decoder(y, z)`` is p(x | y, z), ``encoder_y(x)``
    is q(y | x) and ``encoder_z(x, y)`` is q(z | x, y). A call ``(x)`` is for data without labels:
    y is latent, and its C values are summed out. A call ``(x, y)`` is for data with labels: the
    encoder q(y | x) does not occur in their ELBO. With ``auxiliary`` = alpha it is also trained on
    the labels: alpha log q(y | x) is added to the ELBO (equation 9 of the paper). This term is a
    factor of the guide and is not part of the importance weights.

    Shapes: ``x`` is ``(B, ...)``; ``y`` is one-hot, ``(B, C)``; ``z`` is ``(B, D)``.

    Source: Kingma, Rezende, Mohamed & Welling, *Semi-Supervised Learning with Deep Generative
    Models*, 2014.

    Raises ``ValueError`` for a negative ``auxiliary``.

    >>> from pyro_vae import Bernoulli, DiagonalNormal, StandardNormal, Trace_ELBO, mlp
    >>> from pyro_vae.families import OneHotCategorical, UniformOneHot
    >>> encoders = OneHotCategorical(mlp(64, 16, 10)), DiagonalNormal(mlp(74, 16, 4))
    >>> m2 = M2(UniformOneHot(10), StandardNormal(2), Bernoulli(mlp(12, 16, 64)), *encoders)
    >>> x, y = torch.ones(3, 64), torch.eye(10)[:3]
    >>> unlabelled = Trace_ELBO().estimate(m2.model, m2.guide, x)
    >>> labelled = Trace_ELBO().estimate(m2.model, m2.guide, x, y)
    >>> m2.classify(x).shape, m2.by_class(5).shape
    (torch.Size([3]), torch.Size([50, 64]))
    """

    def __init__(
        self,
        prior_y: nn.Module,
        prior_z: nn.Module,
        decoder: nn.Module,
        encoder_y: nn.Module,
        encoder_z: nn.Module,
        auxiliary: float = 0.0,
    ) -> None:
        super().__init__()
        at_least(0, auxiliary=auxiliary)
        self.prior_y = prior_y
        self.prior_z = prior_z
        self.decoder = decoder
        self.encoder_y = encoder_y
        self.encoder_z = encoder_z
        self.auxiliary = auxiliary

    @pyro_method
    def model(self, x: Tensor, y: Tensor | None = None) -> None:
        """p(y) p(z) p(x | y, z)."""
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", self.prior_y(), obs=y)
            z = pyro.sample("z", self.prior_z())
            pyro.sample("x", self.decoder(y, z), obs=x)

    @pyro_method
    def guide(self, x: Tensor, y: Tensor | None = None) -> None:
        """q(y | x) q(z | x, y); for data with labels q(z | x, y)."""
        with pyro.plate("data", len(x)):
            if y is None:
                y = pyro.sample("y", self.encoder_y(x), infer={"enumerate": "parallel"})
            elif self.auxiliary:
                # the minus sign: the ELBO subtracts the guide's log density
                loss = -self.auxiliary * self.encoder_y(x).log_prob(y)
                pyro.factor("auxiliary", loss, has_rsample=True)
            pyro.sample("z", self.encoder_z(x, y))

    @torch.no_grad()
    def classify(self, x: Tensor) -> Tensor:
        """The most probable class of each datum under q(y | x), (B,)."""
        probs: Tensor = self.encoder_y(x).probs
        return probs.argmax(-1)

    @torch.no_grad()
    def by_class(self, number: int) -> Tensor:
        """E[x | y, z] for ``number`` draws z ~ p(z), each beside all C classes, (number C, ...)."""
        classes = len(self.prior_y().probs)
        z = self.prior_z().sample((number,)).repeat_interleave(classes, 0)
        mean: Tensor = self.decoder(torch.eye(classes, device=z.device).repeat(number, 1), z).mean
        return mean
