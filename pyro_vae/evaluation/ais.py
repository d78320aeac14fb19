"""Annealed importance sampling: lower bounds of log p(x), and upper bounds on simulated data.

The path goes from f_0(z) = q(z | x) or p(z) to f_1(z) = p(x, z), along f_b = f_0^(1-b) f_1^b.
The HMC transition T_t leaves f_(b_t) invariant.

log w = sum_t (b_t - b_(t-1)) (log f_1 - log f_0)(z_(t-1)),   z_0 ~ f_0,  z_t ~ T_t(z_(t-1)),
E[w] = p(x).

Source: Neal, *Annealed Importance Sampling*, 2001; Wu, Burda, Salakhutdinov & Grosse, *On the
Quantitative Analysis of Decoder-Based Generative Models*, 2017; Grosse, Ghahramani & Adams,
*Sandwiching the marginal likelihood using bidirectional Monte Carlo*, 2015.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, cast

import pyro
import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from tqdm import tqdm

from ..programs.checks import at_least
from ..programs.pair import Pair
from ..programs.rows import Call
from ..programs.simulation import simulate
from ..programs.sites import Program
from ..programs.unconstrained import Unconstrained
from .ais_chain import Path
from .estimators import log_mean_exp


def linear(num_steps: int) -> Tensor:
    """Return b_t = t / T for t = 0, ..., T = ``num_steps``, (T + 1,).

    >>> linear(4)
    tensor([0.0000, 0.2500, 0.5000, 0.7500, 1.0000])
    """
    return torch.linspace(0, 1, num_steps + 1)


def sigmoidal(num_steps: int, steepness: float = 4.0) -> Tensor:
    """b_t = (s(d (2t/T - 1)) - s(-d)) / (s(d) - s(-d)), where s is the logistic function.

    The result is (T + 1,), T = ``num_steps``. b_t changes slowly at both ends. ``steepness`` is d.

    Source: Grosse et al. 2015.

    >>> sigmoidal(2)
    tensor([0.0000, 0.5000, 1.0000])
    """
    s = torch.sigmoid(steepness * (2 * linear(num_steps) - 1))
    return (s - s[0]) / (s[-1] - s[0])


@dataclass(frozen=True)
class Sandwich:
    """Lower and upper bounds of log p(x), in nats, for B simulated data with K chains each."""

    args: tuple[Any, ...]
    """The arguments of the call with the simulated data."""
    kwargs: dict[str, Any]
    forward: Tensor
    """The log weights of the chains from the start to the posterior, (K, B)."""
    reverse: Tensor
    """The log weights of the chains from an exact posterior draw back to the start, (K, B)."""

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

    Each datum has ``num_particles`` = K chains. A chain goes through ``num_steps`` temperatures of
    a ``schedule`` from 0 to 1, with one HMC transition of ``num_leapfrog`` steps at each. It starts
    from a draw of the guide or of the prior (``start``). Modules are used in ``eval`` mode.

    Each datum and temperature has a step size, in units of the standard deviation of each dimension
    at the start. A preliminary run with a quarter of the temperatures tunes the step sizes for an
    acceptance rate of 0.65. Its draws are not used again and the step sizes are then fixed, so
    E[w] = p(x) holds exactly.

    Raises ``ValueError`` for fewer than one particle, step or leapfrog step, an unknown start,
    discrete latents, or a start from a guide without a density (``Delta``) or with a random one
    (semi-amortised, dropout): f_0 must be one function.

    >>> ais = AIS(num_particles=4, num_steps=10)
    >>> ais.log_weights(vae.model, vae.guide, torch.ones(3, 64)).shape
    torch.Size([4, 3])
    """

    num_particles: int = 16
    num_steps: int = 500
    num_leapfrog: int = 10
    start: Literal["guide", "prior"] = "guide"
    schedule: Callable[[int], Tensor] = sigmoidal

    def __post_init__(self) -> None:
        at_least(
            1,
            num_particles=self.num_particles,
            num_steps=self.num_steps,
            num_leapfrog=self.num_leapfrog,
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

        ``log_mean_exp`` of the result is the estimate of log p(x), a lower bound in expectation.
        ``chunk_chains`` chains run at a time.
        """
        pair = Pair(model, guide)
        weights = []
        for call in self._parts(pair, (args, kwargs), chunk_chains, progress):
            with self._path(pair, call) as path:
                sizes = self._tuned(path)
                betas = self.schedule(self.num_steps)
                weights.append(path.anneal(path.draws(self.num_particles), betas, sizes))
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
        """Replace the data by data simulated from the model; bound their log p(x) from both sides.

        This is bidirectional Monte Carlo. The error of each bound is at most the gap between the
        bounds, in nats, in expectation and for data from the model.
        """
        pair = Pair(model, guide)
        betas = self.schedule(self.num_steps)
        weights = []
        simulated = []
        for part_args, part_kwargs in self._parts(pair, (args, kwargs), chunk_chains, progress):
            with pair.looking():
                simulation = simulate(model, *part_args, **part_kwargs)
            simulated.append(simulation)
            with self._path(pair, (simulation.args, simulation.kwargs)) as path:
                exact = path.space.unconstrain_run(simulation.latents)
                exact = exact.expand(self.num_particles, -1, -1)
                sizes = self._tuned(path)
                forward = path.anneal(path.draws(self.num_particles), betas, sizes)
                weights.append((forward, path.anneal(exact, betas, sizes, reverse=True)))
        forward, reverse = (torch.cat(part, 1) for part in zip(*weights, strict=True))
        joined = pytree.tree_map(_joined, *((s.args, s.kwargs) for s in simulated))
        whole_args, whole_kwargs = joined
        return Sandwich(whole_args, whole_kwargs, forward, reverse)

    def _parts(self, pair: Pair, call: Call, chunk_chains: int, progress: bool) -> Iterable[Call]:
        parts = pair.parts(call, chunk_chains // self.num_particles)
        return cast(Iterable[Call], tqdm(parts, unit="chunk", disable=not progress))

    def _tuned(self, path: Path) -> Tensor:
        """Step sizes from a preliminary run with a quarter of the temperatures."""
        betas = self.schedule(max(self.num_steps // 4, 1))
        return path.tune(path.draws(self.num_particles), betas, self.num_steps)

    @contextmanager
    def _path(self, pair: Pair, call: Call) -> Iterator[Path]:
        with pair.looking():
            space = Unconstrained(pair, call)
            if self.start == "guide":
                space.check_guide()
            with pyro.validation_enabled(False):  # the programs were checked already
                yield Path(space, self.start == "guide", self.num_leapfrog)


def _joined(first: Any, *others: Any) -> Any:
    """Concatenate the rows of all parts of a call."""
    return torch.cat([first, *others]) if isinstance(first, Tensor) and first.ndim else first
