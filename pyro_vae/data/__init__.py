"""Data sets with explicit pixel kinds.

May import: nothing of the package.
"""

from .adapters import Columns, Data, Items, Loader, as_data
from .arrays import from_array
from .folders import read_folder
from .images import Images, Pixels, bernoulli
from .shapes import FACTORS, Sprites, sprites
from .sources import NAMES, open_source
from .splits import Splits, load_data

__all__ = [
    "FACTORS",
    "NAMES",
    "Columns",
    "Data",
    "Images",
    "Items",
    "Loader",
    "Pixels",
    "Splits",
    "Sprites",
    "as_data",
    "bernoulli",
    "from_array",
    "load_data",
    "open_source",
    "read_folder",
    "sprites",
]
