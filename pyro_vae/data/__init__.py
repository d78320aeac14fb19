"""Data sets with explicit pixel kinds.

May import: nothing of the package.
"""

from .images import Images, Pixels, bernoulli, from_array
from .sources import NAMES, open_source
from .splits import Splits, load_data

__all__ = [
    "NAMES",
    "Images",
    "Pixels",
    "Splits",
    "bernoulli",
    "from_array",
    "load_data",
    "open_source",
]
