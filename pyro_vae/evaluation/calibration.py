"""Simulation-based calibration of a guide against its model."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..programs.pair import Pair
from ..programs.simulation import simulate
from ..programs.sites import Program
from ..programs.unconstrained import Unconstrained


@dataclass(frozen=True)
class Calibration:
    """The ranks of the true latents among draws from the guide.

    The ranks are uniform on 0..L if the guide is the exact posterior.
    """

    ranks: Tensor
    """The number of the L draws that are below the latent that generated the datum, (N, D)."""
    num_draws: int
    """The number of draws L."""

    def histogram(self, num_bins: int = 10) -> Tensor:
        """Return the counts of ranks, (num_bins, D).

        A valley in the middle means that the guide is too narrow, a hill means that it is too wide,
        and a slope means that it is shifted.

        Raises ``ValueError`` unless ``num_bins`` divides L + 1, the number of possible ranks.
        """
        if (self.num_draws + 1) % num_bins:
            raise ValueError(
                "expected a number of bins that divides num_draws + 1 = "
                f"{self.num_draws + 1}, got {num_bins}"
            )
        bins = self.ranks * num_bins // (self.num_draws + 1)
        return torch.stack([(bins == i).sum(0) for i in range(num_bins)])

    def p_values(self, num_bins: int = 10) -> Tensor:
        """Return the p-value of the chi-squared test for uniform ranks of each dimension, (D,).

        The errors are those of :meth:`histogram`.
        """
        counts = self.histogram(num_bins).double()
        expected = len(self.ranks) / num_bins
        chi2 = ((counts - expected).square() / expected).sum(0)
        p: Tensor = torch.special.gammaincc(
            torch.tensor((num_bins - 1) / 2, dtype=torch.float64), chi2.cpu() / 2
        )
        return p


def simulation_based_calibration(
    model: Program,
    guide: Program,
    *args: Any,
    num_draws: int = 99,
    chunk_draws: int = 2048,
    **kwargs: Any,
) -> Calibration:
    """Check a guide by simulation: rank the true latent of a simulated datum among its draws.

    Draw z* ~ p(z) and x ~ p(x | z*), and rank each z*_d among L = ``num_draws`` draws z ~ q(z | x).
    There is one simulation for each datum of the call; the values of the data do not matter.
    Bounded latents are ranked in unconstrained coordinates, which keeps the order. ``chunk_draws``
    draws are made at a time. Modules are used in ``eval`` mode.

    Source: Talts, Betancourt, Simpson, Vehtari & Gelman, *Validating Bayesian Inference Algorithms
    with Simulation-Based Calibration*, 2018.

    Raises ``ValueError`` for discrete latents, or where no argument holds the observed data.

    >>> x = torch.zeros(50, 64)
    >>> simulation_based_calibration(vae.model, vae.guide, x, num_draws=9).histogram(5).shape
    torch.Size([5, 2])
    """
    pair = Pair(model, guide)
    ranks = []
    for part_args, part_kwargs in pair.parts((args, kwargs), chunk_draws // num_draws):
        with pair.looking():
            simulated = simulate(model, *part_args, **part_kwargs)
            space = Unconstrained(pair, (simulated.args, simulated.kwargs))
            truth = space.unconstrain_run(simulated.latents)
            ranks.append((space.draw_guide(num_draws) < truth).sum(0))
    return Calibration(torch.cat(ranks), num_draws)
