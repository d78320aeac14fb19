"""Stochastic variational inference over modules: Pyro's ``SVI`` with a torch optimiser."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, cast

import pyro.infer
import torch
from pyro.infer import ELBO
from torch import Tensor
from torch.optim import Optimizer

from ..objectives.objective import Estimate, Objective
from ..objectives.stock import adopt
from ..programs.heap import keep_heap
from ..programs.isolation import unchanged
from ..programs.pair import Pair
from ..programs.rows import Call
from ..programs.sites import Program
from .graph_step import choose_steps
from .step import trained


class SVI(pyro.infer.SVI):
    """Minimise an objective over the parameters that a torch optimiser holds.

    ``model`` and ``guide`` are any two Pyro programs over modules; ``loss`` is an objective of
    :mod:`pyro_vae.objectives`, or one of Pyro's own ELBOs that has a ``differentiable_loss``
    (:mod:`pyro_vae.objectives.stock` says which of them are replaced by ours). The programs'
    modules own their parameters: Pyro's global parameter store and validation flags do not change.
    The first step validates programs and data. It fails where the loss depends on no parameter of
    the optimiser, or the optimiser holds parameters of other modules. Later steps run without
    validation and do not synchronise with the device.

    Tensor arguments of a step whose first dimension is the size of the data plate have one row per
    datum. Their rows are copied where an objective takes several draws. ``rows`` names these
    arguments where this rule is not enough.

    Where ``torch.distributed`` runs, each process steps on its own share of a batch, and all
    processes use the gradient of the whole batch. With ``compile`` the objective, its gradient and,
    for Adam and AdamW, the update are one compiled graph. On the CPU it draws the random numbers of
    the eager step, on a GPU those of the compiler. Python numbers that the programs read become
    constants of the graph; a later change of them is refused. Tensors may change. With
    ``clip_norm`` the gradient of all parameters together is scaled down to at most this Euclidean
    norm.

    Source: Hoffman et al., *Stochastic Variational Inference*, 2013.

    Raises ``ValueError`` at the first step where the sites of model and guide do not match, the
    data lie outside the likelihood's support, or parameters do not belong to the programs;
    ``TypeError`` for an optimiser that is not torch's.

    >>> from pyro_vae import SVI, VAE, Bernoulli, DiagonalNormal, StandardNormal, Trace_ELBO, mlp
    >>> vae = VAE(StandardNormal(2), Bernoulli(mlp(2, 16, 64)), DiagonalNormal(mlp(64, 16, 4)))
    >>> adam = torch.optim.Adam(vae.parameters(), lr=1e-3)
    >>> svi = SVI(vae.model, vae.guide, adam, loss=Trace_ELBO())
    >>> svi.step(torch.ones(8, 64)).shape
    torch.Size([])
    """

    def __init__(
        self,
        model: Program,
        guide: Program,
        optim: Optimizer,
        loss: Objective | ELBO,
        *,
        clip_norm: float | None = None,
        compile: bool = False,
        rows: Sequence[int | str] | None = None,
    ) -> None:
        if not isinstance(optim, Optimizer):
            raise TypeError(
                f"expected a torch.optim.Optimizer, got {type(optim).__name__}: "
                "Pyro's optimisers go with pyro.infer.SVI"
            )
        if clip_norm is not None and clip_norm <= 0:
            raise ValueError(f"expected a positive clip_norm, got {clip_norm}")
        keep_heap()
        self.pair = Pair(model, guide, rows=rows)
        self.model = model
        self.guide = guide
        self.optim = optim
        self.objective: Objective = loss if isinstance(loss, Objective) else adopt(loss, compile)
        self.clip_norm = clip_norm
        self.compile = compile
        self._steps = choose_steps(self.pair, optim, clip_norm, compile)
        self.num_steps = 0
        self.estimate: Estimate | None = None
        self._checked = False

    def step(self, *args: Any, **kwargs: Any) -> Tensor:
        """Take one optimisation step; return the loss of the batch, in nats, shape ().

        ``self.estimate`` then holds the loss, the log-likelihood, the KL and the true ELBO.
        """
        (estimate,) = self._take([(args, kwargs)])
        return estimate.loss

    def steps(self, batches: Iterable[tuple[Any, ...]]) -> list[Estimate]:
        """Take a step for each batch, a tuple of arguments; return the estimates of the steps.

        The same as :meth:`step` for each of them; a child's own ``step`` is called. The batches are
        gathered first, so each needs memory of its own. Compiled steps take less time: what may
        have changed since the last call is looked up once. Raises ``TypeError`` where a batch is no
        tuple.

        >>> svi = SVI(vae.model, vae.guide, torch.optim.Adam(vae.parameters()), loss=Trace_ELBO())
        >>> estimates = svi.steps([(torch.ones(8, 64),), (torch.zeros(8, 64),)])
        >>> [estimate.loss.shape for estimate in estimates]
        [torch.Size([]), torch.Size([])]
        """
        gathered = list(batches)
        for batch in gathered:
            if not isinstance(batch, tuple):
                raise TypeError(
                    f"expected a tuple of arguments for each step, got a {type(batch).__name__}"
                )
        return list(self.iter_steps(gathered))

    def iter_steps(self, batches: Sequence[Sequence[Any]]) -> Iterator[Estimate]:
        """Take the steps of :meth:`steps`; yield each estimate after its step.

        Who takes them may look in between, and change learning rates and the data of tensors, but
        nothing else of modules, optimiser and objective.
        """
        if getattr(self.step, "__func__", None) is _STEP:
            yield from self._take([(tuple(batch), {}) for batch in batches])
            return
        for batch in batches:
            self.step(*batch)  # the user's own
            yield cast(Estimate, self.estimate)

    def _take(self, calls: Sequence[Call]) -> Iterator[Estimate]:
        """Take a step for each call; yield each estimate after its step."""
        for estimate in self._steps(self._objectives(calls), calls):
            self.num_steps += 1
            self.estimate = estimate
            yield estimate

    def _objectives(self, calls: Sequence[Call]) -> Iterator[Objective]:
        """The objective of each step, when it is asked for; the very first step is checked."""
        for call in calls:
            objective = self.objective.at(self.num_steps)
            if not self._checked:
                self._check(objective, *call)
            yield objective

    def _check(self, objective: Objective, args: Any, kwargs: Any) -> None:
        """Validate programs and data on the first batch, before any parameter changes."""
        parameters = trained(self.optim)
        with self.pair.isolated(validate=True, strict=True), unchanged(self.pair.modules):
            loss = objective.score(self.pair, args, kwargs).loss
            if not loss.requires_grad:
                raise ValueError(
                    "expected the loss to depend on trainable parameters of the model or the "
                    "guide, got none that do"
                )
            grads = torch.autograd.grad(loss, parameters, allow_unused=True)
        self._check_owned(parameters, grads)
        self._checked = True

    def _check_owned(self, parameters: list[Tensor], grads: Sequence[Tensor | None]) -> None:
        """Raise ``ValueError`` where the optimiser holds parameters that the programs do not use.

        A parameter of their modules may be without a gradient on the first batch. A parameter of
        another module never gets a gradient.
        """
        owned = {p for module in self.pair.modules for p in module.parameters()}
        idle = [p for p, grad in zip(parameters, grads, strict=True) if grad is None]
        foreign = [tuple(p.shape) for p in idle if p not in owned]
        if foreign or len(idle) == len(parameters):
            raise ValueError(
                "expected the optimiser's parameters to be those of the model and the guide, got "
                f"others of shapes {foreign or [tuple(p.shape) for p in idle]}"
            )

    def evaluate_loss(self, *args: Any, **kwargs: Any) -> Tensor:
        """Return the loss of a batch, in nats; no weight, momentum or statistic changes."""
        with self.pair.looking():
            objective = self.objective.at(self.num_steps)
            return objective.score(self.pair, args, kwargs).loss


_STEP = SVI.step
"""A step that a child, or somebody who looks at each step, may replace."""
