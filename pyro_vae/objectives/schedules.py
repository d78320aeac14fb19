"""Schedules of beta: functions of the optimisation step."""

import math

from ..programs.checks import at_least
from .objective import Schedule


def linear(steps: int, start: float = 0.0, stop: float = 1.0) -> Schedule:
    """Grow from ``start`` to ``stop`` over ``steps`` optimisation steps, then stay.

    beta(t) = start + (stop - start) min(t / steps, 1)

    Source: Bowman et al., *Generating Sentences from a Continuous Space*, 2016; Sønderby et al.,
    *Ladder VAEs*, 2016.
    Raises ``ValueError`` for fewer than one step.

    >>> linear(10)(5)
    0.5
    """
    at_least(1, steps=steps)
    return lambda step: start + (stop - start) * min(step / steps, 1.0)


def cyclical(period: int, growth: float = 0.5, start: float = 0.0, stop: float = 1.0) -> Schedule:
    """Grow linearly from ``start`` to ``stop``, then stay; start again every ``period`` steps.

    ``growth`` is the fraction of a period in which beta grows.

    beta(t) = start + (stop - start) min((t mod period) / (growth period), 1)

    Source: Fu et al., *Cyclical Annealing Schedule*, 2019.
    Raises ``ValueError`` for a period below one, or a growth outside (0, 1].

    >>> [cyclical(4)(step) for step in range(6)]
    [0.0, 0.5, 1.0, 1.0, 0.0, 0.5]
    """
    at_least(1, period=period)
    if not 0.0 < growth <= 1.0:
        raise ValueError(f"expected growth in (0, 1], got {growth}")
    return lambda step: (
        start + (stop - start) * min(math.fmod(step, period) / (growth * period), 1.0)
    )
