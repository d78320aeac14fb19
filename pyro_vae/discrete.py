"""A categorical latent z, one-hot over C classes, and three gradients for one model.

Exact: ``pyro.infer.TraceEnum_ELBO`` with ``pyro.infer.config_enumerate(guide)`` sums over the classes. Score function:
``Trace_ELBO`` on a ``OneHotCategorical`` guide, or with a baseline :class:`ScoreFunction_ELBO`; unbiased, noisy. Relaxed:
``TraceMeanField_ELBO`` on a :class:`GumbelSoftmax` guide; low variance, biased by the temperature.
"""

from dataclasses import dataclass
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from .conditionals import Conditional
from .elbo import Estimate
from .iwae import ImportanceWeighted, common_scale, estimate, with_gradient
from .objectives import detached_draws
from .trace import Program, data_dim, draw, particle_dim, score_sum, stochastic_sites, terms


class UniformOneHot(nn.Module):
    """p(z) = 1/C for each of ``classes`` = C classes; z is one-hot.

    >>> UniformOneHot(4)().sample((3,)).sum(-1)
    tensor([1., 1., 1.])
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        if classes < 2:
            raise ValueError(f"expected at least 2 classes, got {classes}")
        self.register_buffer("logits", torch.zeros(classes))

    def forward(self) -> dist.Distribution:
        return dist.OneHotCategorical(logits=self.logits)


class OneHotCategorical(Conditional):
    """Categorical(softmax(logits)), with logits = net(h); z is one-hot."""

    def forward(self, h: Tensor) -> dist.Distribution:
        return dist.OneHotCategorical(logits=self.parameter(h))


class GumbelSoftmax(Conditional):
    """A relaxed categorical: z = softmax((logits + g) / temperature), g ~ Gumbel, with logits = net(h).

    Its KL is the categorical's (Jang et al.'s ELBO), so it goes with ``TraceMeanField_ELBO``; a relaxed z has no probability
    under a one-hot prior. With ``hard`` z is one-hot going forward and relaxed in the gradient (straight through).

    In ``eval`` mode z is always one-hot, a draw from the categorical that is relaxed: what evaluates (``log_likelihood``,
    ``evaluate``, the validation of ``fit``) reports that categorical guide, with exact weights, at any temperature.

    Source: Jang, Gu & Poole, *Categorical Reparameterization with Gumbel-Softmax*, 2017; Maddison et al. 2017.

    Raises ``ValueError`` for a temperature that is not positive.

    >>> GumbelSoftmax(nn.Linear(8, 4))(torch.ones(5, 8)).rsample().sum(-1).round(decimals=3)
    tensor([1., 1., 1., 1., 1.], grad_fn=<RoundBackward1>)
    """

    def __init__(self, net: nn.Module, temperature: float = 0.5, hard: bool = False) -> None:
        super().__init__(net)
        if temperature <= 0:
            raise ValueError(f"expected a positive temperature, got {temperature}")
        self.temperature, self.hard = temperature, hard

    def forward(self, h: Tensor) -> dist.Distribution:
        distribution = RelaxedOneHot(logits=self.parameter(h))
        distribution.temperature, distribution.hard = self.temperature, self.hard or not self.training
        return distribution


class RelaxedOneHot(dist.OneHotCategorical):  # type: ignore[misc]
    """A categorical that draws relaxed values; its density and KL are the categorical's."""

    has_rsample = True
    temperature: float
    hard: bool

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        new = super().expand(batch_shape, _instance)
        new.temperature, new.hard = self.temperature, self.hard
        return new

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        logits = self.logits.expand(self._extended_shape(sample_shape))
        soft: Tensor = ((logits - torch.empty_like(logits).exponential_().log()) / self.temperature).softmax(-1)
        if not self.hard:
            return soft
        one_hot: Tensor = torch.zeros_like(soft).scatter(-1, soft.argmax(-1, keepdim=True), 1.0)
        return one_hot + (soft - soft.detach())  # the difference is zero: the sum is one-hot to the last digit


@dataclass(frozen=True)
class ScoreFunction_ELBO(ImportanceWeighted):
    """The ELBO of K >= 2 draws, its guide's gradient by the score function with the other draws' mean as the baseline.

    sum_k (log w_k - 1/(K-1) sum_(j != k) log w_j) dlog q(z_k | x)/dphi / K: unbiased for any latents, discrete or not.

    Source: Williams 1992; Kool, van Hoof & Welling, *Buy 4 REINFORCE Samples, Get a Baseline for Free!*, 2019.

    Raises ``ValueError`` for K < 2 or sites of different scales.
    """

    def __post_init__(self) -> None:
        if self.num_particles < 2:
            raise ValueError(f"expected num_particles of at least 2, got {self.num_particles}: the others are the baseline")

    def __call__(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> Estimate:
        """Return the estimate for a batch."""
        with detached_draws():
            traces = draw(model, guide, args, kwargs, self.num_particles, self.max_plate_nesting)
        now = terms(*traces, scaled=False)
        log_weight = now.log_weight.detach()
        signal = (log_weight - log_weight.mean(0)) * self.num_particles / (self.num_particles - 1)
        score = score_sum(stochastic_sites(traces[1]), {particle_dim(traces[1]), data_dim(*traces)})
        gradient = (now.log_likelihood + now.log_prior + signal * score).sum() / self.num_particles
        return estimate(with_gradient(-log_weight.mean(0), -gradient), now, common_scale(*traces))
