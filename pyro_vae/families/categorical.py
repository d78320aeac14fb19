"""A categorical latent z, one-hot over C classes, and three ways to compute its gradient.

- Exact: ``pyro.infer.TraceEnum_ELBO`` with ``pyro.infer.config_enumerate(guide)`` sums over the
  classes.
- Score function: ``Trace_ELBO`` on a :class:`OneHotCategorical` guide, or ``ScoreFunction_ELBO``
  with a baseline; unbiased and noisy.
- Relaxed: ``TraceMeanField_ELBO`` on a :class:`GumbelSoftmax` guide; low variance, with a bias that
  grows with the temperature.
"""

from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from .conditional import Conditional


class UniformOneHot(nn.Module):
    """p(z) = 1/C for each of ``classes`` = C classes; z is one-hot.

    Raises ``ValueError`` for fewer than two classes.

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


class Categorical(Conditional):
    """Categorical(softmax(logits)) on the integers 0 to C - 1, with logits = net(h).

    >>> Categorical(nn.Linear(8, 4))(torch.ones(5, 8)).sample().shape
    torch.Size([5])
    """

    layout = "logits"

    def forward(self, *parents: Tensor) -> dist.Distribution:
        return dist.Categorical(logits=self.parameter(*parents))


class OneHotCategorical(Conditional):
    """Categorical(softmax(logits)), with logits = net(h); z is one-hot, (..., C)."""

    layout = "logits"

    def forward(self, *parents: Tensor) -> dist.Distribution:
        return dist.OneHotCategorical(logits=self.parameter(*parents))


class GumbelSoftmax(Conditional):
    """A relaxed categorical: z = softmax((logits + g) / temperature), g ~ Gumbel, logits = net(h).

    z is (..., C). Its KL is that of the categorical (the ELBO of Jang et al.), so use
    ``TraceMeanField_ELBO``: a relaxed z has no probability under a one-hot prior. With ``hard`` the
    value of z is one-hot and its gradient is that of the relaxed z (straight through).

    In ``eval`` mode z is a one-hot draw from Categorical(softmax(logits)), without relaxation. So
    ``log_likelihood``, ``evaluate`` and the validation of ``fit`` evaluate this categorical guide,
    with exact weights, at any temperature.

    Source: Jang, Gu & Poole, *Categorical Reparameterization with Gumbel-Softmax*, 2017;
    Maddison, Mnih & Teh, *The Concrete Distribution*, 2017.

    Raises ``ValueError`` for a temperature that is not positive.

    >>> GumbelSoftmax(nn.Linear(8, 4))(torch.ones(5, 8)).rsample().sum(-1).round(decimals=3)
    tensor([1., 1., 1., 1., 1.], grad_fn=<RoundBackward1>)
    """

    layout = "logits"

    def __init__(self, net: nn.Module, temperature: float = 0.5, hard: bool = False) -> None:
        super().__init__(net)
        if temperature <= 0:
            raise ValueError(f"expected a positive temperature, got {temperature}")
        self.temperature = temperature
        self.hard = hard

    def forward(self, *parents: Tensor) -> dist.Distribution:
        distribution = RelaxedOneHot(logits=self.parameter(*parents))
        distribution.temperature = self.temperature
        distribution.hard = self.hard or not self.training
        return distribution


class RelaxedOneHot(dist.OneHotCategorical):
    """A categorical that draws relaxed values; its density and KL are the categorical's."""

    has_rsample = True
    temperature: float
    hard: bool

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        new = super().expand(batch_shape, _instance)
        new.temperature = self.temperature
        new.hard = self.hard
        return new

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        logits = self.logits.expand(self._extended_shape(sample_shape))
        gumbel = -torch.empty_like(logits).exponential_().log()
        soft: Tensor = ((logits + gumbel) / self.temperature).softmax(-1)
        if not self.hard:
            return soft
        one_hot = torch.zeros_like(soft).scatter(-1, soft.argmax(-1, keepdim=True), 1.0)
        # the difference is exactly zero, so the sum is exactly one-hot
        return one_hot + (soft - soft.detach())
