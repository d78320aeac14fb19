"""Stochastic variational inference over modules: Pyro's ``SVI`` with a torch optimiser."""

from typing import Any

import pyro.infer
import torch
from pyro.infer import ELBO
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.optim import Optimizer

from ..objectives.estimate import Estimate, Objective, Scheduled
from ..programs.isolation import evaluation, isolated, modules_of, reachable_modules
from ..programs.sites import Program
from .distributed import replicated, world_size
from .step import GraphStep


class SVI(pyro.infer.SVI):
    """Minimise an objective over the parameters that a torch optimiser holds.

    ``model`` and ``guide`` are any two Pyro programs over modules; ``loss`` is an objective of :mod:`pyro_vae.objectives.elbo`, or
    one of Pyro's own ELBOs that has a ``differentiable_loss``. The programs' modules own their parameters: Pyro's global
    parameter store and validation flags are left as they were. The first step validates programs and data, and fails
    where no parameter receives a gradient, or one belongs to no module of the programs; a part of the modules may stay idle
    in a batch. Later steps run without validation and never wait for the device.

    Where ``torch.distributed`` runs, each process steps on its own share of a batch and all take the gradient of the whole.
    With ``compile`` the objective, its gradient and, for Adam and AdamW, the update are one compiled graph
    (:mod:`pyro_vae.inference.step`); its random numbers are the compiler's own. With ``clip_norm`` the gradient, of all
    parameters together, is scaled down to that Euclidean norm.

    Source: Hoffman et al., *Stochastic Variational Inference*, 2013.

    Raises ``ValueError`` at the first step where the sites of model and guide do not match, the data lie outside the
    likelihood's support, or a trainable parameter is none of the programs'; ``TypeError`` for an optimiser that is not
    torch's, and for data of another dtype than the networks' weights.

    >>> from pyro_vae import SVI, VAE, Bernoulli, DiagonalNormal, StandardNormal, Trace_ELBO, mlp
    >>> vae = VAE(StandardNormal(2), Bernoulli(mlp(2, 16, 64)), DiagonalNormal(mlp(64, 16, 4)))
    >>> svi = SVI(vae.model, vae.guide, torch.optim.Adam(vae.parameters(), lr=1e-3), loss=Trace_ELBO())
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
    ) -> None:
        if not isinstance(optim, Optimizer):
            raise TypeError(
                f"expected a torch.optim.Optimizer, got {type(optim).__name__}: Pyro's optimisers go with pyro.infer.SVI"
            )
        if clip_norm is not None and clip_norm <= 0:
            raise ValueError(f"expected a positive clip_norm, got {clip_norm}")
        self.model, self.guide, self.optim = model, guide, optim
        self.objective: Objective = pyro_objective(loss) if isinstance(loss, ELBO) else loss
        self.clip_norm = clip_norm
        self.graph_step = GraphStep(model, guide, optim, clip_norm) if compile else None
        self._shared_estimate = (
            replicated(self._estimate, modules_of(model, guide))
            if world_size() > 1
            else self._estimate
        )
        self.num_steps = 0
        self.estimate: Estimate | None = None
        self._checked = False

    def step(self, *args: Any, **kwargs: Any) -> Tensor:
        """Take one optimisation step; return the loss of the batch, in nats, as a tensor of shape ().

        ``self.estimate`` then holds the step's log-likelihood, KL and true ELBO beside the loss.
        """
        objective = objective_at(self.objective, self.num_steps)
        if not self._checked:
            self._check(objective, args, kwargs)
        if self.graph_step is not None and self.graph_step.fuses_update and world_size() == 1:
            estimate = self.graph_step.step(objective, args, kwargs)
        else:
            estimate = self._step(objective, args, kwargs)
        self.num_steps += 1
        self.estimate = Estimate(*(value.detach() for value in estimate))
        return self.estimate.loss

    def _step(self, objective: Objective, args: Any, kwargs: Any) -> Estimate:
        self.optim.zero_grad(set_to_none=True)
        with isolated(self.model, self.guide, validate=False):
            estimate: Estimate = self._shared_estimate(objective, args, kwargs)
            (
                estimate.loss * world_size() if world_size() > 1 else estimate.loss
            ).backward()  # replicas average; we sum
        if self.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self._parameters(), self.clip_norm)
        self.optim.step()
        return estimate

    def _estimate(self, objective: Objective, args: Any, kwargs: Any) -> Estimate:
        if self.graph_step is not None:
            return self.graph_step.loss(objective, args, kwargs)
        return objective(self.model, self.guide, *args, **kwargs)

    def _check(self, objective: Objective, args: Any, kwargs: Any) -> None:
        """Validate programs and data on the first batch, before anything moves: no random number, no buffer."""
        ran = reachable_modules(self.model, self.guide)
        buffers = [
            buffer for module in modules_of(self.model, self.guide) for buffer in module.buffers()
        ]
        saved = [buffer.clone() for buffer in buffers]
        parameters = self._parameters()
        try:
            hook = register_module_forward_pre_hook(lambda module, args: ran.append(module))
            with (
                hook,
                torch.random.fork_rng(),
                isolated(self.model, self.guide, validate=True, strict=True),
            ):
                loss = objective(self.model, self.guide, *args, **kwargs).loss
                if not loss.requires_grad:
                    raise ValueError(
                        "expected the loss to depend on trainable parameters of the model or the guide, got none that do"
                    )
                grads = torch.autograd.grad(loss, parameters, allow_unused=True)
        finally:
            with torch.no_grad():
                for buffer, value in zip(buffers, saved, strict=True):
                    buffer.copy_(value)
        self._check_gradients(dict(zip(parameters, grads, strict=True)), ran)
        self._checked = True

    def _check_gradients(self, grads: dict[Tensor, Tensor | None], ran: list[nn.Module]) -> None:
        """Raise ``ValueError`` where no parameter gets a gradient, or one belongs to no module of the programs.

        A batch may leave a part of the modules idle, such as the first labelled one of a semi-supervised model; processes
        that share a step must not, as they exchange all gradients.
        """
        owned = {p for module in set(ran) for p in module.parameters()}
        none = all(grad is None for grad in grads.values())
        idle = [
            p
            for p, grad in grads.items()
            if grad is None and (none or world_size() > 1 or p not in owned)
        ]
        if idle:
            names: dict[Tensor, str] = {
                p: name
                for module in modules_of(self.model, self.guide)
                for name, p in module.named_parameters()
            }
            raise ValueError(
                "expected every trainable parameter of the optimiser to get a gradient, or to belong to a module that the programs "
                f"run, got none for {[names.get(p, f'one of shape {tuple(p.shape)}') for p in idle]}: "
                "give the optimiser the parameters that model and guide use"
            )

    def evaluate_loss(self, *args: Any, **kwargs: Any) -> Tensor:
        """Return the loss of a batch, in nats, and move nothing: no weight, no momentum, no running statistic."""
        with evaluation(self.model, self.guide):
            return objective_at(self.objective, self.num_steps)(
                self.model, self.guide, *args, **kwargs
            ).loss

    def _parameters(self) -> list[Tensor]:
        return [p for group in self.optim.param_groups for p in group["params"] if p.requires_grad]


def objective_at(objective: Objective, step: int) -> Objective:
    """The objective with its schedules at their values for this step."""
    return objective.at(step) if isinstance(objective, Scheduled) else objective


def pyro_objective(elbo: ELBO) -> Objective:
    """One of Pyro's own ELBOs as an objective; it does not tell log-likelihood and KL apart (both are NaN)."""
    if not hasattr(elbo, "differentiable_loss"):
        raise TypeError(
            f"expected an ELBO with a differentiable_loss, got {type(elbo).__name__}: use pyro.infer.SVI"
        )

    def objective(model: Program, guide: Program, *args: Any, **kwargs: Any) -> Estimate:
        loss: Tensor = elbo.differentiable_loss(model, guide, *args, **kwargs)
        unknown = torch.full_like(loss.detach(), torch.nan)
        return Estimate(loss, unknown, unknown)

    return objective
