"""The deep Markov model: a latent chain with nonlinear transitions."""

import pyro
import torch
from pyro import poutine
from pyro.nn import PyroModule, pyro_method
from torch import Tensor, nn


class DeepMarkovModel(PyroModule):
    """prod_t p(z_t | z_{t-1}) p(x_t | z_t) and q(z | x) = prod_t q(z_t | z_{t-1}, x_t, ..., x_T).

    ``transition(z)`` is p(z_t | z_{t-1}), with a learned z_0; ``emission(z)`` is p(x_t | z_t). The
    network ``future(x, lengths)`` returns h (B, T, H), where h_t depends on x_t, ..., x_T. The
    guide combines it with z_{t-1}: ``posterior(1/2 (tanh(W z_{t-1} + b) + h_t))`` is
    q(z_t | z_{t-1}, x_t, ..., x_T), a diagonal normal or a flow.

    Shapes: ``x`` is (B, T, F), ``lengths`` is (B,), ``z_t`` is (B, D). Both programs mask the steps
    after the end of a sequence: they add nothing to the densities.

    Source: Krishnan, Shalit & Sontag, *Structured Inference Networks for Nonlinear State Space
    Models*, 2017.

    >>> from pyro_vae.nets import FutureGRU, GatedTransition
    >>> q = DiagonalNormal(mlp(8, 4))
    >>> p = DiagonalNormal(GatedTransition(2, hidden=8))
    >>> dmm = DeepMarkovModel(p, Bernoulli(mlp(2, 8, 5)), FutureGRU(5, 8), q, dim=2, hidden=8)
    >>> x, lengths = torch.ones(3, 4, 5), torch.tensor([4, 2, 3])
    >>> Trace_ELBO().estimate(dmm.model, dmm.guide, x, lengths).loss.shape
    torch.Size([])
    """

    def __init__(
        self,
        transition: nn.Module,
        emission: nn.Module,
        future: nn.Module,
        posterior: nn.Module,
        *,
        dim: int,
        hidden: int,
    ) -> None:
        super().__init__()
        self.transition = transition
        self.emission = emission
        self.future = future
        self.combine = nn.Linear(dim, hidden)
        self.posterior = posterior
        self.first_prior = nn.Parameter(torch.zeros(dim))
        self.first_posterior = nn.Parameter(torch.zeros(dim))

    @pyro_method
    def model(self, x: Tensor, lengths: Tensor) -> None:
        """prod_t p(z_t | z_{t-1}) p(x_t | z_t)."""
        mask = torch.arange(x.shape[1], device=x.device) < lengths.unsqueeze(1)
        with pyro.plate("data", len(x)):
            z = self.first_prior.expand(len(x), -1)
            path = []
            for t in range(x.shape[1]):
                with poutine.mask(mask=mask[:, t]):
                    z = pyro.sample(f"z_{t + 1}", self.transition(z))
                path.append(z)
            p = self.emission(torch.stack(path, 1))
            pyro.sample("x", p.mask(mask).to_event(1), obs=x)

    @pyro_method
    def guide(self, x: Tensor, lengths: Tensor) -> None:
        """prod_t q(z_t | z_{t-1}, x_t, ..., x_T)."""
        mask = torch.arange(x.shape[1], device=x.device) < lengths.unsqueeze(1)
        h = self.future(x, lengths)
        with pyro.plate("data", len(x)):
            z = self.first_posterior.expand(len(x), -1)
            for t, h_t in enumerate(h.unbind(1)):  # the gradient of h[:, t] would fill all of h
                both = 0.5 * (torch.tanh(self.combine(z)) + h_t)
                with poutine.mask(mask=mask[:, t]):
                    z = pyro.sample(f"z_{t + 1}", self.posterior(both))

    @torch.no_grad()
    def generate(self, n: int, length: int) -> Tensor:
        """Draw ``n`` sequences x of ``length`` steps, (n, length, F)."""
        z = self.first_prior.expand(n, -1)
        steps = []
        for _ in range(length):
            z = self.transition(z).sample()
            steps.append(self.emission(z).sample())
        return torch.stack(steps, 1)
