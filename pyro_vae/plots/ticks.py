"""The labels of axes."""

import math

from matplotlib.axis import Axis
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

FEW_DECADES = 2.5
"""An axis over fewer powers of ten than this also has labels between the powers."""


def plain_ticks(axis: Axis) -> None:
    """Label a logarithmic axis with plain numbers: 4 and 20, not 4x10^0 and 2x10^1.

    Matplotlib's default labels are powers of ten, or multiples of them for a short range.
    """
    low, high = axis.get_view_interval()
    short = low > 0 and math.log10(high / low) < FEW_DECADES
    axis.set_major_locator(LogLocator(10, subs=(1.0, 2.0, 5.0) if short else (1.0,), numticks=12))
    axis.set_major_formatter(FuncFormatter(_plain))
    axis.set_minor_formatter(NullFormatter())


def _plain(value: float, _position: int | None = None) -> str:
    return f"{value:.0e}" if value < 1e-3 or value >= 1e6 else f"{value:,.10g}".replace(",", " ")
