"""Figures: rate against distortion, and what latent dimensions tell about known factors."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from ..evaluation.disentanglement import FactorInformation


class RatePoint(NamedTuple):
    """The two terms of the ELBO of a pair that was trained with the weight beta of the KL."""

    beta: float
    rate: float
    """E_x KL(q(z | x) || p(z)), in nats."""
    distortion: float
    """-E_x E_q[log p(x | z)], in nats."""
    active_units: int


def rate_distortion(points: Sequence[RatePoint]) -> Figure:
    """Draw distortion against rate, and rate, distortion and active units against beta.

    The dotted line is the set of points with the same rate + distortion = -ELBO as the best point.
    Raises ``ValueError`` where there are no points.

    Source: Alemi et al., *Fixing a Broken ELBO*, 2018.

    >>> points = [RatePoint(0.1, 60, 60, 20), RatePoint(1, 25, 78, 18), RatePoint(10, 4, 130, 5)]
    >>> figure = rate_distortion(points)
    """
    if not points:
        raise ValueError("expected at least one point, got none")
    points = sorted(points)
    beta, rate, distortion, active = (np.array(column) for column in zip(*points, strict=True))
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    plane, terms, units = figure.subplots(1, 3)
    plane.plot(rate, distortion, ".-")
    for point in points:
        plane.annotate(
            f"{point.beta:g}", point[1:3], xytext=(5, 4), textcoords="offset points", fontsize=8
        )
    best = float((rate + distortion).min())
    ends = np.array([0.0, min(best, float(rate.max()))])
    plane.plot(ends, best - ends, ":", color="grey", label=f"rate + distortion = {best:.1f}")
    plane.set(
        xlabel="rate in nats", ylabel="distortion in nats", title="each point trained with its beta"
    )
    plane.set_ylim(bottom=0)
    plane.legend(frameon=False)
    terms.plot(beta, rate, ".-", label="rate")
    terms.plot(beta, distortion, ".-", label="distortion")
    terms.plot(beta, rate + distortion, ".--", color="grey", label="their sum, -ELBO")
    terms.set(xscale="log", xlabel="beta", ylabel="nats per datum", title="the two terms")
    terms.legend(frameon=False)
    units.plot(beta, active, ".-")
    units.set(xscale="log", xlabel="beta", ylabel="active units", title="Var(E[z | x]) > 0.01")
    units.set_ylim(bottom=0)
    for axes in (plane, terms, units):
        axes.grid(alpha=0.3)
    return figure


def factor_maps(found: dict[str, FactorInformation], names: Sequence[str]) -> Figure:
    """Draw I(z_d; v_k) / H(v_k) of each guide, a row for a latent and a column for a factor.

    ``names`` are the names of the factors. Latents are sorted by their largest value.
    Raises ``ValueError`` where there are no guides.
    """
    if not found:
        raise ValueError("expected at least one guide, got none")
    figure = Figure(figsize=(3.2 * len(found) + 1, 3.6), layout="constrained")
    panels = figure.subplots(1, len(found), squeeze=False)[0]
    for axes, (title, information) in zip(panels, found.items(), strict=True):
        share = information.information / information.entropy
        order = share.amax(1).argsort(descending=True)
        image = axes.imshow(share[order].numpy(), vmin=0, vmax=1, cmap="magma", aspect="auto")
        axes.set_xticks(range(len(names)), list(names), rotation=40, ha="right")
        axes.set_yticks(range(len(order)), [f"z{int(d)}" for d in order])
        axes.set_title(f"{title}, MIG {information.mig:.2f}")
    figure.colorbar(image, ax=list(panels), label="I(z; factor) / H(factor)")
    return figure
