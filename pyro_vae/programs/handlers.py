"""Pyro handlers: values given to sites, many draws at once, draws cut from their parameters."""

from typing import Any

from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor


class assign(Messenger):
    """Give latent sites their values, by name."""

    def __init__(self, values: dict[str, Tensor]) -> None:
        super().__init__()
        self.values = values

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] in self.values and not msg["is_observed"]:
            msg["value"] = self.values[msg["name"]]
            msg["done"] = True


class draw_many(Messenger):
    """Draw K values at the one latent site of a guide; the program goes on with the first."""

    def __init__(self, num_particles: int) -> None:
        super().__init__()
        self.num_particles = num_particles

    def _pyro_sample(self, msg: Any) -> None:
        if not msg["is_observed"] and not site_is_subsample(msg):
            self.value: Tensor = msg["fn"]((self.num_particles,))
            msg["value"] = self.value[0]
            msg["done"] = True


class detach_draws(Messenger):
    """Cut every draw from the parameters that made it, before the program goes on."""

    def _pyro_post_sample(self, msg: Any) -> None:
        if isinstance(msg["value"], Tensor) and not msg["is_observed"]:
            msg["value"] = msg["value"].detach()
