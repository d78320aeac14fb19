"""Why a pair has no importance weight for each datum, in one sentence."""

from pyro.poutine import Trace

from .rows import Rows
from .sites import (
    Plate,
    Site,
    base_dist,
    base_name,
    drawn_subsample,
    is_auxiliary,
    is_factor,
    plates,
    stochastic_sites,
)

Names = tuple[str, ...]

AROUND = "expected a plate with one row per datum around every sample site of model and guide"


def why_unreportable(
    model_trace: Trace, guide_trace: Trace, plate: Plate | None, whole: Names, rows: Rows, size: int
) -> str | None:
    """Why there is no log p(x) for each datum of a call; None where there is."""
    if plate is None:
        return f"{AROUND}, got none"
    drawn = drawn_subsample(model_trace)
    if drawn and (rows.size != size or not rows.any):
        return drawn
    return why_unweighable(guide_trace, plate, whole)


def why_unweighable(guide_trace: Trace, plate: Plate | None, whole: Names) -> str | None:
    """Why a draw of a pair has no importance weight for each datum; None where it has.

    Without any plate the call is one datum.
    """
    if whole:
        return f"{AROUND}, got global sites {list(whole)}"
    return why_undrawn(guide_trace, plate)


def why_undrawn(guide_trace: Trace, plate: Plate | None) -> str | None:
    """Why the draws of a guide have no density; None where they have one."""
    if plate is None and any(plates(site) for site in stochastic_sites(guide_trace)):
        return f"{AROUND}, got none"
    guide_sites = [s for s in stochastic_sites(guide_trace) if not is_factor(s)]
    if not guide_sites:
        return "expected latent sites in the guide, got none: importance weights need draws"
    if relaxed := why_relaxed(guide_trace):
        return f"{relaxed}: let the family draw hard values in eval mode"
    points = [s["name"] for s in guide_sites if _is_point(s)]
    auxiliary = [s["name"] for s in guide_sites if is_auxiliary(s)]
    if points and not auxiliary:
        return (
            f"expected a guide with a density, got a Delta at site {points[0]!r}: "
            "a point has no importance weight, only the loss of an autoencoder"
        )
    others = [s for s in guide_sites if not is_auxiliary(s) and base_name(s["fn"]) != "Delta"]
    if auxiliary and others:
        return (
            f"expected a guide whose latent sites are functions of its auxiliary ones, got "
            f"auxiliary sites {auxiliary} beside draws of their own: log q(z | x) is unknown"
        )
    return None


def why_relaxed(guide_trace: Trace) -> str | None:
    """Why values of a site have no probability, where the guide draws relaxed ones."""
    for site in stochastic_sites(guide_trace):
        if not site["is_observed"] and not bool(site["fn"].support.check(site["value"]).all()):
            return (
                f"expected draws in the support of {base_name(site['fn'])} at site "
                f"{site['name']!r}, got relaxed values, which have no probability"
            )
    return None


def _is_point(site: Site) -> bool:
    """Whether a site draws a point, for which no density is stated."""
    fn = base_dist(site["fn"])
    return base_name(fn) == "Delta" and bool((fn.log_density == 0).all())
