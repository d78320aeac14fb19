"""The chains of annealed importance sampling: HMC transitions along the densities f_b."""

from typing import NamedTuple

import torch
from torch import Tensor

from ..programs.unconstrained import Unconstrained

TARGET_ACCEPTANCE = 0.65
ADAPTATION_RATE = 0.2
SCALE_DRAWS = 64  # draws from the start, to estimate the scale of each dimension


class _State(NamedTuple):
    """The positions of the chains, (K, B, D), and log f_0 and log f_1 there, (K, B)."""

    u: Tensor
    start: Tensor
    target: Tensor


class Path:
    """The densities f_b for some data, and the chains that go from one to the next."""

    def __init__(self, space: Unconstrained, from_guide: bool, num_leapfrog: int) -> None:
        self.space = space
        self.from_guide = from_guide
        self.num_leapfrog = num_leapfrog
        self.draws = space.draw_guide if from_guide else space.draw_prior
        self.scale = self.draws(SCALE_DRAWS).std(0)  # (B, D)

    def tune(self, u: Tensor, betas: Tensor, num_steps: int) -> Tensor:
        """Return step sizes (T, B) of each temperature and datum, tuned by a run over fewer betas.

        ``u`` are the positions at the start.
        """
        state = _State(u, *self.densities(u))
        log_size = u.new_full((u.shape[1],), u.shape[-1] ** -0.25).log()
        sizes = []
        for beta in betas[1:].tolist():
            state, acceptance = self.move(state, beta, log_size.exp())
            log_size = log_size + ADAPTATION_RATE * (acceptance - TARGET_ACCEPTANCE)
            sizes.append(log_size.exp())
        nearest = torch.arange(num_steps) * len(sizes) // num_steps
        return torch.stack(sizes)[nearest]

    def anneal(self, u: Tensor, betas: Tensor, step_sizes: Tensor, reverse: bool = False) -> Tensor:
        """Run the chains from u; return log w (K, B).

        With ``reverse`` they run from the target to the start, with the same transitions.
        """
        state = _State(u, *self.densities(u))
        log_weight = torch.zeros_like(state.target)
        steps = list(zip(betas.tolist()[1:], betas.diff().tolist(), step_sizes, strict=True))
        for beta, difference, size in reversed(steps) if reverse else steps:
            if reverse:
                state, _ = self.move(state, beta, size)
            log_weight = log_weight + difference * (state.target - state.start)
            if not reverse:
                state, _ = self.move(state, beta, size)
        return log_weight

    def move(self, state: _State, beta: float, size: Tensor) -> tuple[_State, Tensor]:
        """Make an HMC transition that leaves f_beta invariant; return states and acceptance rates.

        There is one acceptance rate for each datum, (B,).
        """
        jitter = 0.8 + 0.4 * torch.rand_like(size)  # avoids periodic trajectories
        step = (size * jitter).unsqueeze(-1) * self.scale
        momentum = torch.randn_like(state.u)
        u = state.u
        gradient = self.gradient(state.u, beta)[0]
        energy = _energy(state, beta, momentum)
        for _ in range(self.num_leapfrog):
            momentum = momentum + step / 2 * gradient
            u = u + step * momentum
            gradient, start, target = self.gradient(u, beta)
            momentum = momentum + step / 2 * gradient
        proposal = _State(u, start, target)
        log_ratio = energy - _energy(proposal, beta, momentum)
        log_ratio = log_ratio.nan_to_num(nan=-torch.inf)  # a diverged trajectory is rejected
        accept = torch.rand_like(log_ratio).log() < log_ratio
        moved = _State(
            torch.where(accept.unsqueeze(-1), proposal.u, state.u),
            torch.where(accept, proposal.start, state.start),
            torch.where(accept, proposal.target, state.target),
        )
        return moved, log_ratio.clamp(max=0).exp().mean(0)

    def densities(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Return log f_0 and log f_1."""
        log_likelihood, log_prior = self.space.log_joint(u)
        return self.space.log_guide(u) if self.from_guide else log_prior, log_prior + log_likelihood

    @torch.enable_grad()
    def gradient(self, u: Tensor, beta: float) -> tuple[Tensor, Tensor, Tensor]:
        """Return d log f_beta / du, log f_0 and log f_1."""
        u = u.detach().requires_grad_()
        start, target = self.densities(u)
        (gradient,) = torch.autograd.grad(((1 - beta) * start + beta * target).sum(), u)
        return gradient, start.detach(), target.detach()


def _energy(state: _State, beta: float, momentum: Tensor) -> Tensor:
    return 0.5 * momentum.square().sum(-1) - (1 - beta) * state.start - beta * state.target
