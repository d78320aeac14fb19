"""Checks of a pair of programs: sites, shapes, support."""

import re
from contextlib import AbstractContextManager
from typing import Any

import torch
from pyro.poutine import Trace
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from .isolation import reachable_modules
from .sites import Program, base_dist, base_name, densities, stochastic_sites


def check_sites(model_trace: Trace, guide_trace: Trace) -> None:
    """Raise ``ValueError`` unless the guide samples exactly the latent sites of the model, and some site is observed."""
    latent = {
        site["name"]: site for site in stochastic_sites(model_trace) if not site["is_observed"]
    }
    guided = {
        site["name"]: site
        for site in stochastic_sites(guide_trace)
        if not site["infer"].get("is_auxiliary")
    }
    observed = sorted(name for name, site in guided.items() if site["is_observed"])
    if observed:
        raise ValueError(f"expected no observed sites in the guide, got {observed}")
    if latent.keys() != guided.keys():
        missing, unknown = (
            sorted(latent.keys() - guided.keys()),
            sorted(guided.keys() - latent.keys()),
        )
        raise ValueError(
            f"expected the guide to sample the model's latent sites {sorted(latent)}, got {sorted(guided)} "
            f"(missing {missing}, unknown {unknown})"
        )
    if not any(site["is_observed"] for site in stochastic_sites(model_trace)):
        raise ValueError(
            f"expected an observed site in the model, got only latent sites {sorted(latent)}"
        )


class dtypes_explained(AbstractContextManager[None]):
    """Raise ``TypeError`` with a remedy where programs fail because data are of another dtype than their weights."""

    def __init__(self, args: Any, kwargs: Any, *programs: Program) -> None:
        self.data, self.programs = (*args, *kwargs.values()), programs

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        if not isinstance(error, RuntimeError) or not re.search(
            r"dtype|scalar type|type \(", str(error)
        ):
            return
        weights = (
            p.dtype
            for module in reachable_modules(*self.programs)
            for p in module.parameters()
            if p.is_floating_point()
        )
        expected = next(weights, torch.get_default_dtype())
        got = next(
            (x.dtype for x in self.data if isinstance(x, Tensor) and x.dtype != expected), None
        )
        if got is not None:
            call = {torch.float32: "float()", torch.float64: "double()"}.get(
                expected, f"to({expected})"
            )
            raise TypeError(
                f"expected data of dtype {expected}, as the weights are, got {got}: convert with x.{call}"
            ) from error


class same_shapes(Messenger):
    """Raise ``ValueError`` where a value from the guide has another shape than the model's distribution for it."""

    def _pyro_post_sample(self, msg: Any) -> None:
        if msg["is_observed"] or site_is_subsample(msg):
            return
        expected, got = (
            tuple(msg["fn"].batch_shape + msg["fn"].event_shape),
            tuple(msg["value"].shape),
        )
        if expected != got:
            raise ValueError(
                f"expected the guide to draw site {msg['name']!r} in the model's shape {expected}, got {got}"
            )


def check_support(model_trace: Trace) -> None:
    """Raise ``ValueError`` where an observed value lies outside the support of its distribution."""
    for site in stochastic_sites(model_trace):
        if site["is_observed"] and not bool(site["fn"].support.check(site["value"]).all()):
            value, support = site["value"], site["fn"].support
            raise ValueError(
                f"expected values of site {site['name']!r} in the support {support} of its {base_name(site['fn'])}, "
                f"got values in [{float(value.min()):g}, {float(value.max()):g}]: choose a likelihood for this kind of data"
            )


def check_density(guide_trace: Trace) -> None:
    """Raise ``ValueError`` where the guide draws a point, which has no density, for anything that reports log p(x).

    A ``Delta`` with a ``log_density`` states the density of a draw; with an auxiliary site it is a function of that draw.
    """
    sites = stochastic_sites(guide_trace)
    if any(site["infer"].get("is_auxiliary") and not site["is_observed"] for site in sites):
        return
    for site in sites:
        if base_name(site["fn"]) == "Delta" and bool(
            (base_dist(site["fn"]).log_density == 0).all()
        ):
            raise ValueError(
                f"expected a guide with a density, got a Delta at site {site['name']!r}: a point has no importance weight, "
                "only the loss of an autoencoder (use Trace_ELBO)"
            )


def check_latents(guide_trace: Trace) -> None:
    """Raise ``ValueError`` where the guide draws nothing: without draws there are no weights."""
    if not densities(guide_trace):
        raise ValueError(
            "expected latent sites in the guide, got none: importance weights need draws, use Trace_ELBO"
        )


class no_subsample(Messenger):
    """Raise ``ValueError`` where a plate draws a subsample by itself: what is reported for each of ``num_data`` would be of some.

    A plate of ``num_data`` rows that stand for more (``subsample_size=len(x)``) is none.
    """

    def __init__(self, num_data: int) -> None:
        super().__init__()
        self.num_data = num_data

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        super().__exit__(kind, error, traceback)
        if isinstance(error, ValueError) and str(error).startswith(
            "expected plates without a subsample"
        ):
            raise ValueError(
                str(error).splitlines()[0]
            ) from None  # Pyro has appended the shapes of the trace

    def _pyro_sample(self, msg: Any) -> None:
        if not site_is_subsample(msg) or msg["value"] is not None:
            return
        size, drawn = msg["fn"].size, msg["fn"].subsample_size
        if drawn is not None and drawn not in (size, self.num_data):
            raise ValueError(
                f"expected plates without a subsample, one row per datum, got {drawn} of {size} in plate {msg['name']!r}: "
                "pass the data to evaluate as arguments, and size the plate by them"
            )
