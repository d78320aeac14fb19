"""The base class of objectives: a loss of a draw, which is also one of Pyro's ELBOs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from pyro.infer import ELBO
from pyro.infer.elbo import ELBOModule
from pyro.poutine import Trace
from torch import Tensor, nn

from ..programs.draw import Draw
from ..programs.pair import Pair
from ..programs.scoring import Term
from ..programs.sites import Program

Schedule = Callable[[int], float]


class Estimate(NamedTuple):
    """An objective's estimate for a batch: sums over its data, in nats, of shape ()."""

    loss: Tensor
    """The quantity that is minimised; the only differentiable member."""
    log_likelihood: Tensor | None
    """E_q[log p(x | z)], without the weights of the objective; None where it is not known."""
    kl: Tensor | None
    """KL(q(z | x) || p(z)), without beta; None where it is not known."""

    @property
    def elbo(self) -> Tensor | None:
        """The true ELBO, E_q[log p(x | z)] - KL(q(z | x) || p(z)); None where it is not known."""
        if self.log_likelihood is None or self.kl is None:
            return None
        return self.log_likelihood - self.kl

    def detached(self) -> "Estimate":
        """The same numbers without gradients."""
        if not any(v is not None and v.requires_grad for v in self):
            return self
        known = (None if v is None else v.detach() for v in (self.log_likelihood, self.kl))
        return Estimate(self.loss.detach(), *known)

    @classmethod
    def of(cls, draw: Draw, loss: Tensor, kl: Term | None = None) -> "Estimate":
        """The estimate of a draw with a loss."""
        with torch.no_grad():
            log_likelihood = draw.total(draw.log_likelihood)
            return cls(loss, log_likelihood, draw.total(draw.kl if kl is None else kl))


@dataclass(frozen=True)
class Objective(ELBO):
    """A loss of a pair of programs, a sum over the batch in nats.

    ``objective.estimate(model, guide, *args)`` is its value on a batch. As one of Pyro's ELBOs it
    has ``loss``, ``differentiable_loss`` and ``loss_and_grads``, so that ``pyro.infer.SVI`` with a
    ``PyroOptim`` takes it; ``objective(model, guide)`` is a module whose parameters are those of
    the modules behind the programs. A child defines :meth:`score`.
    """

    def score(self, pair: Pair, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Estimate:
        """Return the estimate of a pair on a call."""
        raise NotImplementedError

    def at(self, step: int) -> "Objective":
        """This objective at an optimisation step: itself, unless it has a schedule."""
        return self

    def estimate(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> Estimate:
        """Return the estimate for a batch; Pyro's parameter store stays as it was."""
        pair = self._pair(model, guide)
        with pair.isolated():
            return self.score(pair, args, kwargs)

    def __call__(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> ELBOModule:
        """Return a module whose call on a batch is the differentiable loss.

        Raises ``TypeError`` where a batch is given too.
        """
        if args or kwargs:
            raise TypeError(
                "expected objective(model, guide), which makes a module, got a batch too: "
                "use objective.estimate(model, guide, *args)"
            )
        return ObjectiveModule(model, guide, self)

    def loss(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> float:
        """Return the loss as a number, as Pyro's ELBOs do."""
        with torch.no_grad():
            return self.score(self._pair(model, guide), args, kwargs).loss.item()

    def differentiable_loss(
        self, model: Program, guide: Program, *args: Any, **kwargs: Any
    ) -> Tensor:
        """Return the loss as a tensor; parameters reach Pyro's store, as with Pyro's ELBOs."""
        return self.score(self._pair(model, guide), args, kwargs).loss

    def loss_and_grads(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> float:
        """Return the loss as a number, after its gradient was added to the parameters."""
        loss = self.differentiable_loss(model, guide, *args, **kwargs)
        if loss.requires_grad:
            loss.backward()
        return loss.item()

    def _get_trace(
        self, model: Program, guide: Program, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Trace, Trace]:
        """One trace of each program, as in Pyro's ELBOs."""
        draw = self._pair(model, guide).draw(args, kwargs)
        return draw.model_traces[0], draw.guide_traces[0]

    def _pair(self, model: Program, guide: Program) -> Pair:
        """The pair of the last call if it is the same, so that its structure is found only once."""
        last: Pair | None = self.__dict__.get("_last")
        if last is None or last.model != model or last.guide != guide:
            last = Pair(model, guide)
            object.__setattr__(self, "_last", last)
        return last


class ObjectiveModule(ELBOModule):
    """An objective of two programs as a module, which holds the modules behind them."""

    def __init__(self, model: Program, guide: Program, objective: Objective) -> None:
        nn.Module.__init__(self)
        self.pair = Pair(model, guide)
        self.elbo = objective
        self.owners = nn.ModuleList(self.pair.modules)

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Return the differentiable loss of a batch."""
        with self.pair.isolated():
            return self.elbo.score(self.pair, args, kwargs).loss
