"""A categorical latent z, one-hot over C classes, and three gradients for one model.

Exact: ``pyro.infer.TraceEnum_ELBO`` with ``pyro.infer.config_enumerate(guide)`` sums over the classes. Score function:
``Trace_ELBO`` on a ``OneHotCategorical`` guide, or with a baseline :class:`ScoreFunction_ELBO`; unbiased, noisy. Relaxed:
``TraceMeanField_ELBO`` on a :class:`GumbelSoftmax` guide; low variance, biased by the temperature.
"""

from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from .conditional import Conditional


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
        distribution.temperature, distribution.hard = (
            self.temperature,
            self.hard or not self.training,
        )
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
        soft: Tensor = (
            (logits - torch.empty_like(logits).exponential_().log()) / self.temperature
        ).softmax(-1)
        if not self.hard:
            return soft
        one_hot: Tensor = torch.zeros_like(soft).scatter(-1, soft.argmax(-1, keepdim=True), 1.0)
        return one_hot + (
            soft - soft.detach()
        )  # the difference is zero: the sum is one-hot to the last digit
