"""The latents as one unconstrained vector per datum, and the log-densities of model and guide there."""

from typing import Any, NamedTuple

import torch
from pyro import poutine
from pyro.distributions.util import sum_rightmost
from pyro.poutine import Trace
from torch import Tensor
from torch.distributions import Transform, biject_to

from .checks import check_density
from .scoring import draw, vectorized
from .sites import Program, base_name, data_dim, densities, log_prob_sum, nesting, stochastic_sites


class Coordinates(NamedTuple):
    """Where a site's values lie in the vector u."""

    transform: Transform
    """From R^n to the support."""
    event_dim: int
    shape: torch.Size
    """Of one datum's unconstrained values."""


class Unconstrained:
    """log p(x, z) and log q(z | x) of some data as functions of u, of shape (K, B, D): K points for each of B data.

    Sites with a bounded support are mapped to it from R^n, as ``biject_to`` does, and the log-density of z given u carries the
    Jacobian: log p(u) = log p(z) + log |dz/du|. Call the methods within :func:`pyro_vae.programs.isolation.evaluation`.

    Raises ``ValueError`` for discrete latents, guides with auxiliary sites, and programs without a plate over the data.
    """

    def __init__(self, model: Program, guide: Program, args: Any, kwargs: Any) -> None:
        self.model, self.guide, self.args, self.kwargs = model, guide, args, kwargs
        traces = model_trace, guide_trace = draw(model, guide, args, kwargs)
        dim, self.depth = data_dim(*traces), nesting(*traces)
        auxiliary = [
            site["name"] for site in densities(guide_trace) if site["infer"].get("is_auxiliary")
        ]
        if dim is None or auxiliary:
            raise ValueError(
                f"expected a plate over the data around every site and no auxiliary sites in the guide, got {auxiliary}"
            )
        self.dim, self.guide_trace = dim, guide_trace
        self.sites = {
            site["name"]: self._coordinates(site)
            for site in stochastic_sites(model_trace)
            if site["name"] in guide_trace.nodes
        }

    def draw_guide(self, num_points: int) -> Tensor:
        """Draw z ~ q(z | x)."""
        return self._draw(self.guide, num_points)

    def draw_prior(self, num_points: int) -> Tensor:
        """Draw z ~ p(z)."""
        return self._draw(self.model, num_points)

    def log_joint(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Return log p(x | z) and log p(z) + log |dz/du|, (K, B) each."""
        z, log_jacobian = self.constrain(u)
        sites = stochastic_sites(self._at(self.model, z, len(u)))
        keep: set[int | None] = {-1 - self.depth, self.dim}
        log_likelihood = log_prob_sum(
            (site for site in sites if site["name"] not in z), keep, scaled=False
        )
        return log_likelihood, log_prob_sum(
            (site for site in sites if site["name"] in z), keep, scaled=False
        ) + log_jacobian

    def log_guide(self, u: Tensor) -> Tensor:
        """Return log q(z | x) + log |dz/du|, (K, B)."""
        z, log_jacobian = self.constrain(u)
        return (
            log_prob_sum(
                densities(self._at(self.guide, z, len(u))),
                {-1 - self.depth, self.dim},
                scaled=False,
            )
            + log_jacobian
        )

    def check_guide(self) -> None:
        """Raise ``ValueError`` where the guide has no density at its draws, or another one at each run."""
        check_density(self.guide_trace)
        with torch.random.fork_rng():
            u = self.draw_guide(1)
            once, again = self.log_guide(u), self.log_guide(u)
        if not torch.allclose(once, again, rtol=1e-4, atol=1e-3):
            raise ValueError(
                f"expected a guide that is deterministic given its draws, got log q = {float(once.sum()):g} and "
                f"{float(again.sum()):g} for the same draws: start from the prior"
            )

    def constrain(self, u: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Return the sites' values at u, and log |dz/du| of shape (K, B)."""
        values, log_jacobian = {}, u.new_zeros(u.shape[:2])
        parts = torch.split(u, [site.shape.numel() for site in self.sites.values()], -1)
        for (name, site), part in zip(self.sites.items(), parts, strict=True):
            flat = part.reshape(*u.shape[:2], *site.shape)
            value = site.transform(flat)
            jacobian = site.transform.log_abs_det_jacobian(flat, value)  # type: ignore[no-untyped-call]
            log_jacobian = log_jacobian + sum_rightmost(jacobian, jacobian.ndim - 2)
            values[name] = value.movedim((0, 1), self._places(site))
        return values, log_jacobian

    def unconstrain(self, values: dict[str, Tensor]) -> Tensor:
        """Return u of the sites' values, which may lack the dimension of points: then (1, B, D)."""
        parts = [self._first(values[name], site.event_dim) for name, site in self.sites.items()]
        flat = [
            site.transform.inv(part) for site, part in zip(self.sites.values(), parts, strict=True)
        ]
        return torch.cat([part.reshape(*part.shape[:2], -1) for part in flat], -1)

    def _draw(self, program: Program, num_points: int) -> Tensor:
        trace = poutine.trace(vectorized(program, num_points, self.depth)).get_trace(
            *self.args, **self.kwargs
        )
        return self.unconstrain({name: trace.nodes[name]["value"] for name in self.sites})

    def _at(self, program: Program, z: dict[str, Tensor], num_points: int) -> Trace:
        conditioned = poutine.condition(vectorized(program, num_points, self.depth), data=z)
        return poutine.trace(conditioned).get_trace(*self.args, **self.kwargs)

    def _coordinates(self, site: Any) -> Coordinates:
        try:
            transform = biject_to(site["fn"].support)
        except NotImplementedError as error:
            raise ValueError(
                f"expected continuous latents that R^n can be mapped to, got a {base_name(site['fn'])} at site {site['name']!r}"
            ) from error
        value = self._first(site["value"], site["fn"].event_dim)
        return Coordinates(transform, site["fn"].event_dim, transform.inv(value).shape[2:])

    def _first(self, value: Tensor, event_dim: int) -> Tensor:
        """A site's value with its points and its data first."""
        value = value.reshape(*[1] * (1 + self.depth + event_dim - value.ndim), *value.shape)
        return value.movedim((-1 - self.depth - event_dim, self.dim - event_dim), (0, 1))

    def _places(self, site: Coordinates) -> tuple[int, int]:
        return -1 - self.depth - site.event_dim, self.dim - site.event_dim
