"""Guides that are not one conditional distribution: per datum, semi-amortised, and no guide at all (NUTS)."""

from typing import Any, cast

import pyro
import torch
from pyro import poutine
from pyro.infer import MCMC, NUTS
from pyro.nn import PyroModule
from torch import Tensor, nn

from .elbo import Trace_ELBO
from .trace import Program, evaluation, own_parameters, program
from .vae import VAE


class PerDatumVAE(VAE):
    """A VAE without amortisation: q_b(z) has parameters of its own for each datum b, called with its row number.

    The encoder is a family over a table, ``DiagonalNormal(nn.Embedding(num_data, DiagonalNormal.outputs(dim)))``; any family
    will do. ``model`` and ``guide`` take ``(x, rows)``; new data need rows of their own, and training.

    >>> from pyro_vae import Bernoulli, DiagonalNormal, StandardNormal, Trace_ELBO, mlp
    >>> vae = PerDatumVAE(StandardNormal(2), Bernoulli(mlp(2, 16, 64)), DiagonalNormal(nn.Embedding(100, 4)))
    >>> Trace_ELBO()(vae.model, vae.guide, torch.ones(3, 64), torch.tensor([5, 0, 99])).loss.shape
    torch.Size([])
    """

    @program
    def model(self, x: Tensor, rows: Tensor) -> None:
        """p(x, z) = p(z) p(x | z)."""
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", self.prior())
            pyro.sample("x", self.decoder(z), obs=x)

    @program
    def guide(self, x: Tensor, rows: Tensor) -> None:
        """q_b(z)."""
        with pyro.plate("data", len(x)):
            pyro.sample("z", self.encoder(rows))


class SemiAmortised(PyroModule):
    """A guide whose encoder makes a first guess, which a few steps of SVI then improve for each datum.

    h_0 = net(x),   h_(t+1) = h_t + rate_t d ELBO(h_t)/dh_t,   q(z | x) = family(h_T)

    ``family`` is a conditional over ``nn.Identity()``: it reads the network's outputs h; ``model`` is the model that is
    climbed, by ELBOs of ``num_particles`` fresh draws. ``rate_t`` is learned, from ``rate``. Each step costs a pass through
    the decoder and back. Gradients pass through the steps exactly, by second derivatives, so that the encoder learns to be a
    good place to start. As the steps draw anew each time the guide is not deterministic given z: DReG and STL refuse it.

    Source: Kim et al., *Semi-Amortized Variational Autoencoders*, 2018.

    >>> from pyro_vae import VAE, Bernoulli, DiagonalNormal, StandardNormal, Trace_ELBO, mlp
    >>> vae = VAE(StandardNormal(2), Bernoulli(mlp(2, 16, 64)), DiagonalNormal(mlp(64, 16, 4)))
    >>> guide = SemiAmortised(vae.model, vae.encoder.net, DiagonalNormal(nn.Identity()))
    >>> Trace_ELBO()(vae.model, guide, torch.ones(3, 64)).loss.shape
    torch.Size([])
    """

    def __init__(
        self, model: Program, net: nn.Module, family: nn.Module, *, steps: int = 5, rate: float = 0.1, num_particles: int = 4
    ) -> None:
        super().__init__()
        if steps < 1 or num_particles < 1 or rate <= 0:
            raise ValueError(f"expected steps, num_particles of at least 1 and a positive rate, got {steps}, {num_particles}, {rate}")
        self.net, self.family = net, family
        self.log_rate = nn.Parameter(torch.full((steps,), rate).log())
        self.num_particles = num_particles
        self._model = model

    def forward(self, x: Tensor) -> None:
        """q(z | x) after the steps."""
        h = self.net(x)
        with own_parameters(), poutine.block(expose_types=["param"]):  # the draws of the steps are no part of the program
            for rate in self.log_rate.exp():
                h = h - rate * cast(Any, torch.func.grad)(self._loss)(h, x)
        self._guide(h)

    def _guide(self, h: Tensor) -> None:
        with pyro.plate("data", len(h)):
            pyro.sample("z", self.family(h))

    def _loss(self, h: Tensor, x: Tensor) -> Tensor:
        """Minus the ELBO, summed over the data; the draws are rows, so that the program may run in a plate of particles."""
        h, x = (torch.cat([rows] * self.num_particles) for rows in (h, x))
        return Trace_ELBO()(self._model, lambda x: self._guide(h), x).loss / self.num_particles


def posterior_draws(model: Program, *args: Any, num_samples: int = 500, warmup_steps: int = 200, **kwargs: Any) -> dict[str, Tensor]:
    """Draw from p(z | x) itself by the No-U-Turn sampler: a reference for any guide, of shape (num_samples, B, D) by site.

    One chain moves the latents of all data together, which mixes well for some dozens of dimensions in all: pass few data.
    It runs eagerly, in ``eval`` mode, and slowly; latents must be continuous. Autocorrelated, but for the sampler's error
    exact: judge it by ``pyro.ops.stats.effective_sample_size``.

    Source: Hoffman & Gelman, *The No-U-Turn Sampler*, 2014.

    Raises ``ValueError`` for fewer than one sample.
    """
    if num_samples < 1 or warmup_steps < 1:
        raise ValueError(f"expected num_samples and warmup_steps of at least 1, got {num_samples} and {warmup_steps}")
    with evaluation(model), torch.enable_grad():
        mcmc = MCMC(NUTS(model), num_samples=num_samples, warmup_steps=warmup_steps, disable_progbar=True)
        mcmc.run(*args, **kwargs)
        return cast(dict[str, Tensor], mcmc.get_samples())
