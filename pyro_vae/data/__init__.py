"""Data sets with explicit pixel kinds.

May import: nothing of the package.
"""

from .adapters import Columns, Data, Items, Loader, as_data
from .arrays import from_array
from .folders import read_folder
from .images import Images, Pixels, bernoulli
from .sources import NAMES, open_source
from .splits import Splits, load_data
from .tables import TABLES, load_table

__all__ = [
    "NAMES",
    "TABLES",
    "Columns",
    "Data",
    "Images",
    "Items",
    "Loader",
    "Pixels",
    "Splits",
    "as_data",
    "bernoulli",
    "from_array",
    "load_data",
    "load_table",
    "open_source",
    "read_folder",
]
