"""M1 + M2: a semi-supervised VAE over the latents of another VAE."""

import pyro
import torch
from pyro.nn import PyroModule, pyro_method
from torch import Tensor, nn


class StackedM2(PyroModule):
    """M1 + M2: p(y) p(z2) p(z1 | y, z2) p(x | z1), with q(z1 | x) q(y | z1) q(z2 | z1, y).

    ``prior_y()`` is p(y), ``prior_z2()`` is p(z2), ``middle(y, z2)`` is p(z1 | y, z2) and
    ``decoder(z1)`` is p(x | z1); ``encoder_z1(x)``, ``encoder_y(z1)`` and ``encoder_z2(z1, y)`` are
    the factors of the guide. A call ``(x)`` sums y out; a call ``(x, y)`` observes it.

    The paper trains it layer by layer: a :class:`~pyro_vae.models.VAE` M1 with ``decoder`` and
    ``encoder_z1``, then a :class:`~pyro_vae.models.M2` with the rest, on draws z1 ~ q(z1 | x).

    Shapes: ``x`` is ``(B, ...)``; ``y`` is one-hot, ``(B, C)``; z1 is (B, D1), z2 is (B, D2).

    Source: Kingma, Rezende, Mohamed & Welling, *Semi-Supervised Learning with Deep Generative
    Models*, 2014.

    >>> from pyro_vae import Bernoulli, DiagonalNormal, StandardNormal, Trace_ELBO, mlp
    >>> from pyro_vae.families import OneHotCategorical, UniformOneHot
    >>> stack = StackedM2(
    ...     UniformOneHot(10),
    ...     StandardNormal(2),
    ...     DiagonalNormal(mlp(10 + 2, 16, 10)),
    ...     Bernoulli(mlp(5, 16, 64)),
    ...     DiagonalNormal(mlp(64, 16, 10)),
    ...     OneHotCategorical(mlp(5, 16, 10)),
    ...     DiagonalNormal(mlp(5 + 10, 16, 4)),
    ... )
    >>> Trace_ELBO().estimate(stack.model, stack.guide, torch.ones(3, 64)).loss.shape
    torch.Size([])
    """

    def __init__(
        self,
        prior_y: nn.Module,
        prior_z2: nn.Module,
        middle: nn.Module,
        decoder: nn.Module,
        encoder_z1: nn.Module,
        encoder_y: nn.Module,
        encoder_z2: nn.Module,
    ) -> None:
        super().__init__()
        self.prior_y = prior_y
        self.prior_z2 = prior_z2
        self.middle = middle
        self.decoder = decoder
        self.encoder_z1 = encoder_z1
        self.encoder_y = encoder_y
        self.encoder_z2 = encoder_z2

    @pyro_method
    def model(self, x: Tensor, y: Tensor | None = None) -> None:
        """p(y) p(z2) p(z1 | y, z2) p(x | z1)."""
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", self.prior_y(), obs=y)
            z2 = pyro.sample("z2", self.prior_z2())
            z1 = pyro.sample("z1", self.middle(y, z2))
            pyro.sample("x", self.decoder(z1), obs=x)

    @pyro_method
    def guide(self, x: Tensor, y: Tensor | None = None) -> None:
        """q(z1 | x) q(y | z1) q(z2 | z1, y)."""
        with pyro.plate("data", len(x)):
            z1 = pyro.sample("z1", self.encoder_z1(x))
            if y is None:
                y = pyro.sample("y", self.encoder_y(z1), infer={"enumerate": "parallel"})
            pyro.sample("z2", self.encoder_z2(z1, y))

    @torch.no_grad()
    def generate(self, y: Tensor) -> Tensor:
        """E[x | z1] for one draw of z2 and z1 given each label, one-hot (B, C)."""
        z2 = self.prior_z2().sample((len(y),))
        x: Tensor = self.decoder(self.middle(y, z2).sample()).mean
        return x
