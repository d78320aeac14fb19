"""A guide that improves the encoder's output by some steps of SVI for each datum."""

from typing import Any, cast

import pyro
import torch
from pyro import poutine
from pyro.nn import PyroModule
from torch import Tensor, nn

from ..programs.checks import at_least
from ..programs.isolation import own_parameters
from ..programs.sites import Program


class SemiAmortised(PyroModule):
    """A guide whose encoder gives initial parameters, improved for each datum by steps of SVI.

    h_0 = net(x),   h_(t+1) = h_t + rate_t d ELBO(h_t)/dh_t,   q(z | x) = family(h_T)

    ``net`` maps x (B, ...) to h (B, outputs), the parameters of the ``family``, which is a
    conditional over ``nn.Identity()``. There are T = ``steps`` steps. They maximise the ELBO of
    ``model``, estimated with ``num_particles`` new draws in each step. ``rate_t`` is learned and
    starts at ``rate``. Each step costs a forward and a backward pass of the decoder. Gradients go
    through the steps exactly, with second derivatives, so the encoder learns a good start. The
    steps use new draws in every run, so q(z | x) is random: DReG and STL refuse this guide.

    Source: Kim et al., *Semi-Amortized Variational Autoencoders*, 2018.

    Raises ``ValueError`` for ``steps`` or ``num_particles`` below 1, or a rate that is not
    positive.

    >>> guide = SemiAmortised(vae.model, vae.encoder.net, DiagonalNormal(nn.Identity()))
    >>> Trace_ELBO().estimate(vae.model, guide, torch.ones(3, 64)).loss.shape
    torch.Size([])
    """

    def __init__(
        self,
        model: Program,
        net: nn.Module,
        family: nn.Module,
        *,
        steps: int = 5,
        rate: float = 0.1,
        num_particles: int = 4,
    ) -> None:
        super().__init__()
        at_least(1, steps=steps, num_particles=num_particles)
        if rate <= 0:
            raise ValueError(f"expected a rate greater than 0, got {rate}")
        self.net = net
        self.family = family
        self.log_rate = nn.Parameter(torch.full((steps,), rate).log())
        self.num_particles = num_particles
        self._model = model

    def forward(self, x: Tensor) -> None:
        """q(z | x) after the steps."""
        h = self.net(x)
        rates = self.log_rate.exp()
        # the draws of the steps are not sites of the program
        with own_parameters(), poutine.block(expose_types=["param"]):
            for rate in rates:
                h = h - rate * cast(Any, torch.func.grad)(self._loss)(h, x)
        self._guide(h)

    def _guide(self, h: Tensor) -> None:
        with pyro.plate("data", len(h)):
            pyro.sample("z", self.family(h))

    def _loss(self, h: Tensor, x: Tensor) -> Tensor:
        """Minus the ELBO, summed over the data; the rows are copied for each draw."""
        h, x = (torch.cat([rows] * self.num_particles) for rows in (h, x))
        guide = poutine.trace(self._guide).get_trace(h)
        model = poutine.trace(poutine.replay(self._model, trace=guide)).get_trace(x)
        return cast(Tensor, guide.log_prob_sum() - model.log_prob_sum()) / self.num_particles
