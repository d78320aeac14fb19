"""The latents as one unconstrained vector per datum, and the log-densities there."""

from typing import NamedTuple

import torch
from pyro.distributions.util import sum_rightmost
from torch import Tensor
from torch.distributions import Transform, biject_to

from .pair import Pair
from .rows import Call
from .sites import Site, base_name
from .structure import Values


class Coordinates(NamedTuple):
    """Where a site's values lie in the vector u."""

    transform: Transform
    """From R^n to the support."""
    shape: torch.Size
    """Of one datum's unconstrained values."""


class Unconstrained:
    """log p(x, z) and log q(z | x) as functions of u, (K, B, D): K points for each of B data.

    Sites with a bounded support are mapped to it from R^n, as ``biject_to`` does, and the
    log-density of z given u carries the Jacobian: log p(u) = log p(z) + log |dz/du|. Call the
    methods within ``pair.looking()``.

    Raises ``ValueError`` for discrete latents, guides with auxiliary sites, and pairs without a
    weight for each datum.
    """

    def __init__(self, pair: Pair, call: Call) -> None:
        self.pair = pair
        self.call = call
        draw = pair.draw(*call)
        if draw.structure.refusal is not None:
            raise ValueError(draw.structure.refusal)
        model = draw.model_traces[0]
        guide = draw.guide_traces[0]
        auxiliary = sorted(draw.values.keys() - model.nodes.keys())
        if auxiliary:
            raise ValueError(f"expected no auxiliary sites in the guide, got {auxiliary}")
        if draw.structure.guide_values:
            raise ValueError(
                "expected continuous latents, got sites of the guide that are to be summed out, "
                f"{sorted(draw.structure.guide_values)}: leave them to the model alone"
            )
        order = [name for name in model.nodes if name in draw.values]
        self.sites = {name: _coordinates(guide.nodes[name], draw.values[name]) for name in order}

    def draw_guide(self, num_points: int) -> Tensor:
        """Draw z ~ q(z | x)."""
        return self.unconstrain(self.pair.sample(self.call, num_points).values)

    def draw_prior(self, num_points: int) -> Tensor:
        """Draw z ~ p(z)."""
        return self.unconstrain(self.pair.sample_prior(self.call, num_points))

    def log_joint(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Return log p(x | z) and log p(z) + log |dz/du|, (K, B) each."""
        z, log_jacobian = self.constrain(u)
        log_likelihood, log_prior = self.pair.score_model(self.call, z, len(u))
        return log_likelihood, log_prior + log_jacobian

    def log_guide(self, u: Tensor) -> Tensor:
        """Return log q(z | x) + log |dz/du|, (K, B)."""
        z, log_jacobian = self.constrain(u)
        return self.pair.score_guide(self.call, z, len(u)) + log_jacobian

    def check_guide(self) -> None:
        """Raise ``ValueError`` where the guide has another density at each run."""
        with torch.random.fork_rng():
            u = self.draw_guide(1)
            once = self.log_guide(u)
            again = self.log_guide(u)
        if not torch.allclose(once, again, rtol=1e-4, atol=1e-3):
            raise ValueError(
                "expected a guide that is deterministic given its draws, got log q = "
                f"{float(once.sum()):g} and {float(again.sum()):g} for the same draws: "
                "start from the prior"
            )

    def constrain(self, u: Tensor) -> tuple[Values, Tensor]:
        """Return the sites' values at u, (K, B, ...), and log |dz/du| of shape (K, B)."""
        values = {}
        log_jacobian = u.new_zeros(u.shape[:2])
        parts = torch.split(u, [site.shape.numel() for site in self.sites.values()], -1)
        for (name, site), part in zip(self.sites.items(), parts, strict=True):
            flat = part.reshape(*u.shape[:2], *site.shape)
            values[name] = value = site.transform(flat)
            jacobian = site.transform.log_abs_det_jacobian(flat, value)  # type: ignore[no-untyped-call]
            log_jacobian = log_jacobian + sum_rightmost(jacobian, jacobian.ndim - 2)
        return values, log_jacobian

    def unconstrain(self, values: Values) -> Tensor:
        """Return u of the sites' values (K, B, ...)."""
        flat = [site.transform.inv(values[name]) for name, site in self.sites.items()]
        return torch.cat([part.reshape(*part.shape[:2], -1) for part in flat], -1)

    def unconstrain_run(self, values: dict[str, Tensor]) -> Tensor:
        """Return u, (1, B, D), of the sites' values as a run of the model has them."""
        latents = self.pair.structure(self.call).latents
        return self.unconstrain({n: latents[n].from_rows(values[n], 1) for n in self.sites})


def _coordinates(site: Site, value: Tensor) -> Coordinates:
    try:
        transform = biject_to(site["fn"].support)
    except NotImplementedError as error:
        raise ValueError(
            f"expected continuous latents that R^n can be mapped to, got {base_name(site['fn'])} "
            f"at site {site['name']!r}"
        ) from error
    return Coordinates(transform, transform.inv(value).shape[2:])
