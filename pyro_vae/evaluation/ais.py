"""Annealed importance sampling: log p(x) from below, and on simulated data from above.

From f_0(z) = q(z | x) (or p(z)) to f_1(z) = p(x, z) along f_b = f_0^(1-b) f_1^b, with HMC transitions T_t that leave f_(b_t) as it is:

log w = sum_t (b_t - b_(t-1)) (log f_1 - log f_0)(z_(t-1)),   z_0 ~ f_0,  z_t ~ T_t(z_(t-1)),      E[w] = p(x).

Source: Neal, *Annealed Importance Sampling*, 2001; Wu, Burda, Salakhutdinov & Grosse, *On the Quantitative Analysis of
Decoder-Based Generative Models*, 2017; Grosse, Ghahramani & Adams, *Sandwiching the marginal likelihood using bidirectional
Monte Carlo*, 2015.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, cast

import pyro
import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from tqdm import tqdm

from ..programs.pair import Pair
from ..programs.rows import Call
from ..programs.simulation import simulate
from ..programs.sites import Program
from ..programs.unconstrained import Unconstrained
from .estimators import log_mean_exp

TARGET_ACCEPTANCE = 0.65


ADAPTATION_RATE = 0.2


SCALE_DRAWS = 64  # of the start, for the scale of its dimensions


def linear(num_steps: int) -> Tensor:
    """b_t = t / T.

    >>> linear(4)
    tensor([0.0000, 0.2500, 0.5000, 0.7500, 1.0000])
    """
    return torch.linspace(0, 1, num_steps + 1)


def sigmoidal(num_steps: int, steepness: float = 4.0) -> Tensor:
    """b_t = (s(d (2t/T - 1)) - s(-d)) / (s(d) - s(-d)), s the logistic function: slow at both ends.

    Source: Grosse et al. 2015.

    >>> sigmoidal(2)
    tensor([0.0000, 0.5000, 1.0000])
    """
    s = torch.sigmoid(steepness * (2 * linear(num_steps) - 1))
    return (s - s[0]) / (s[-1] - s[0])


@dataclass(frozen=True)
class Sandwich:
    """Bounds of log p(x) from both sides, for B simulated data, from K chains each; in nats."""

    args: tuple[Any, ...]
    """The call with the simulated data."""
    kwargs: dict[str, Any]
    forward: Tensor
    """The log weights of the chains from the start to the posterior, (K, B)."""
    reverse: Tensor
    """The log weights of the chains from an exact draw from the posterior back to the start, (K, B)."""

    @property
    def lower(self) -> Tensor:
        """log 1/K sum_k w_k: at most log p(x) in expectation, (B,)."""
        return log_mean_exp(self.forward)

    @property
    def upper(self) -> Tensor:
        """-log 1/K sum_k 1/w_k over the reverse chains: at least log p(x) in expectation, (B,)."""
        return -log_mean_exp(-self.reverse)


@dataclass(frozen=True)
class AIS:
    """Annealed importance sampling for any pair of programs with continuous latents.

    ``num_particles`` = K chains per datum, of ``num_steps`` temperatures of a ``schedule`` from 0 to 1, each with one HMC
    transition of ``num_leapfrog`` steps, ``start`` from the guide or the prior. Step sizes are per datum and temperature, in
    units of the start's standard deviation by dimension. They are tuned towards an acceptance of 0.65 in a preliminary run
    with a quarter of the temperatures, whose draws are thrown away: with them fixed, E[w] = p(x) exactly. Modules are used
    in ``eval`` mode.

    Raises ``ValueError`` for fewer than one particle, step or leapfrog step, an unknown start,
    discrete latents, or a start from a guide without a density (``Delta``) or with a random one
    (semi-amortised, dropout): f_0 must be one function.

    >>> from pyro_vae import VAE, Bernoulli, DiagonalNormal, StandardNormal, mlp
    >>> vae = VAE(StandardNormal(2), Bernoulli(mlp(2, 16, 64)), DiagonalNormal(mlp(64, 16, 4)))
    >>> AIS(num_particles=4, num_steps=10).log_weights(vae.model, vae.guide, torch.ones(3, 64)).shape
    torch.Size([4, 3])
    """

    num_particles: int = 16
    num_steps: int = 500
    num_leapfrog: int = 10
    start: Literal["guide", "prior"] = "guide"
    schedule: Callable[[int], Tensor] = sigmoidal

    def __post_init__(self) -> None:
        if min(self.num_particles, self.num_steps, self.num_leapfrog) < 1:
            raise ValueError(
                "expected num_particles, num_steps and num_leapfrog of at least 1, "
                f"got {self.num_particles}, {self.num_steps} and {self.num_leapfrog}"
            )
        if self.start not in ("guide", "prior"):
            raise ValueError(f"expected start to be 'guide' or 'prior', got {self.start!r}")

    def log_weights(
        self,
        model: Program,
        guide: Program,
        *args: Any,
        chunk_chains: int = 2048,
        progress: bool = False,
        **kwargs: Any,
    ) -> Tensor:
        """Return log w, of shape (K, B).

        ``log_mean_exp`` of it is the estimate of log p(x), a lower bound in expectation.
        ``chunk_chains`` chains run at a time.
        """
        pair, weights = Pair(model, guide), []
        for call in self._parts(pair, (args, kwargs), chunk_chains, progress):
            with self._path(pair, call) as path:
                betas = self.schedule(self.num_steps)
                weights.append(path.anneal(path.draw(), betas, path.tune()))
        return torch.cat(weights, 1)

    def sandwich(
        self,
        model: Program,
        guide: Program,
        *args: Any,
        chunk_chains: int = 2048,
        progress: bool = False,
        **kwargs: Any,
    ) -> Sandwich:
        """Replace the data by simulated ones and bound their log p(x) from both sides.

        Bidirectional Monte Carlo: the gap between the bounds also bounds the error of either, in
        nats, on data like these.
        """
        pair, betas, weights = Pair(model, guide), self.schedule(self.num_steps), []
        simulated = []
        for part_args, part_kwargs in self._parts(pair, (args, kwargs), chunk_chains, progress):
            with pair.looking():
                simulation = simulate(model, *part_args, **part_kwargs)
            simulated.append(simulation)
            with self._path(pair, (simulation.args, simulation.kwargs)) as path:
                exact = path.space.unconstrain_run(simulation.latents)
                exact = exact.expand(self.num_particles, -1, -1)
                sizes = path.tune()
                forward = path.anneal(path.draw(), betas, sizes)
                weights.append((forward, path.anneal(exact, betas, sizes, reverse=True)))
        forward, reverse = (torch.cat(part, 1) for part in zip(*weights, strict=True))
        joined = pytree.tree_map(_joined, *((s.args, s.kwargs) for s in simulated))
        return Sandwich(*joined, forward, reverse)

    def _parts(self, pair: Pair, call: Call, chunk_chains: int, progress: bool) -> Iterable[Call]:
        parts = pair.parts(call, chunk_chains // self.num_particles)
        return cast(Iterable[Call], tqdm(parts, unit="chunk", disable=not progress))

    @contextmanager
    def _path(self, pair: Pair, call: Call) -> Iterator["_Path"]:
        with pair.looking():
            space = Unconstrained(pair, call)
            if self.start == "guide":
                space.check_guide()
            with pyro.validation_enabled(False):  # the programs are checked: the chains need not be
                yield _Path(self, space)


def _joined(first: Any, *others: Any) -> Any:
    """The rows of all parts of a call."""
    return torch.cat([first, *others]) if isinstance(first, Tensor) and first.ndim else first


class _State(NamedTuple):
    """Where the chains are, (K, B, D), and the log-densities log f_0 and log f_1 there, (K, B)."""

    u: Tensor
    start: Tensor
    target: Tensor


class _Path:
    """The densities f_b of some data, and chains along them."""

    def __init__(self, options: AIS, space: Unconstrained) -> None:
        self.options, self.space = options, space
        self.draws = space.draw_guide if options.start == "guide" else space.draw_prior
        self.scale = self.draws(SCALE_DRAWS).std(0)  # (B, D)

    def draw(self) -> Tensor:
        return self.draws(self.options.num_particles)

    def tune(self) -> Tensor:
        """Step sizes (T, B) by temperature and datum, from a run with a quarter of the temperatures."""
        num_steps = self.options.num_steps
        betas = self.options.schedule(max(num_steps // 4, 1))
        u = self.draw()
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
        """Run the chains from u; return log w (K, B). In reverse, from the target to the start, by the same transitions."""
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
        """One HMC transition that leaves f_beta as it is; return also the mean acceptance of each datum's chains."""
        jitter = 0.8 + 0.4 * torch.rand_like(size)  # lest the trajectories be periodic
        step = (size * jitter).unsqueeze(-1) * self.scale
        momentum = torch.randn_like(state.u)
        u, gradient = state.u, self.gradient(state.u, beta)[0]
        energy = _energy(state, beta, momentum)
        for _ in range(self.options.num_leapfrog):
            momentum = momentum + step / 2 * gradient
            u = u + step * momentum
            gradient, start, target = self.gradient(u, beta)
            momentum = momentum + step / 2 * gradient
        proposal = _State(u, start, target)
        log_ratio = (energy - _energy(proposal, beta, momentum)).nan_to_num(
            nan=-torch.inf
        )  # a diverged trajectory is refused
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
        return self.space.log_guide(
            u
        ) if self.options.start == "guide" else log_prior, log_prior + log_likelihood

    @torch.enable_grad()
    def gradient(self, u: Tensor, beta: float) -> tuple[Tensor, Tensor, Tensor]:
        """Return d log f_beta / du, log f_0 and log f_1."""
        u = u.detach().requires_grad_()
        start, target = self.densities(u)
        (gradient,) = torch.autograd.grad(((1 - beta) * start + beta * target).sum(), u)
        return gradient, start.detach(), target.detach()


def _energy(state: _State, beta: float, momentum: Tensor) -> Tensor:
    return 0.5 * momentum.square().sum(-1) - (1 - beta) * state.start - beta * state.target
