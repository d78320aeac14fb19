"""The likely fault behind a failure, told by the program's features and by what happened."""

from .spec import Spec

PENDING: tuple[str, ...] = ()
"""Faults that are known and not yet cured: they are counted, and fail no test."""


def untrue(spec: Spec, sentence: str) -> bool:
    """Whether a refusal says something that does not hold for the program."""
    shared = spec.scale in ("", "all") and not (
        spec.outside or spec.model_factor == "outside" or spec.guide_factor == "outside"
    )
    outside = spec.outside or "outside" in (spec.model_factor, spec.guide_factor)
    return (
        ("deterministic given its draws" in sentence and not spec.noise)
        or ("a gradient, got none" in sentence and spec.labels != "")
        or ("one scale for all sites" in sentence and shared)
        or (
            "a plate with one row per datum around every" in sentence
            and not outside
            and not spec.subsample
        )
    )


def likely_fault(spec: Spec, check: str, detail: str) -> str:
    """A name for the fault behind a failure; the first that fits."""
    bounds = check in ("IWAE", "Renyi", "DReG", "STL", "score function")
    log_px = check in ("log weights", "log likelihood", "one datum", "evaluate", "AIS")
    rules = [
        ("15 data of another type", spec.dtype != "float64"),
        ("8 Gumbel-Softmax guide", spec.latent == "relaxed"),
        ("10 annealing from a guide that draws anew", spec.noise and check == "AIS"),
        ("4 Delta guide certified", "of a Delta guide" in detail),
        ("12 first batch leaves a part idle", "a gradient, got none" in detail),
        ("9 draws replayed without their marks", "deterministic given its draws" in detail),
        (
            "networks meet a leading dimension",
            spec.strict and "mm: self must be a matrix" in detail,
        ),
        (
            "no latent site",
            spec.labels == "given" and spec.latent != "mixed" and "raised" in detail,
        ),
        (
            "3 free bits",
            check == "free bits" and (spec.discrete or spec.reverse or "KeyError" in detail),
        ),
        ("1 sibling plates merged", spec.outside == "sibling"),
        ("2 outermost plate by dimension, global latents", bool(spec.outside)),
        ("14 masked score", check == "score function" and spec.mask == "latent"),
        ("14 evaluate depends on the chunk", "in chunks of" in detail),
        ("6 plate that subsamples", spec.subsample and (log_px or bounds)),
        ("13 factor in the guide", bool(spec.guide_factor) and (log_px or bounds)),
        (
            "2 outermost plate by dimension",
            bool(spec.inner) and (bounds or check == "log weights") and "raised" not in detail,
        ),
        (
            "2 deterministic outside the plate",
            spec.deterministic == "outside" or spec.model_factor == "outside",
        ),
        (
            "5 latents without an event dimension",
            check in ("evaluate", "AIS") and (spec.scalar or bool(spec.inner) or spec.discrete),
        ),
        ("5 latents without an event dimension", spec.scalar),
    ]
    return next((name for name, fits in rules if fits), "another")
