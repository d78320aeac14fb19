"""Data sets of images with an explicit kind of pixels, of tables, of text and of music.

May import: nothing of the package.
"""

from .adapters import Columns, Data, Items, Loader, as_data, take
from .arrays import from_array
from .chorales import Buckets, Rolls, load_chorales, rolls, save_midi, scales
from .draws import NormalDraws
from .folders import read_folder
from .images import Images, Pixels, bernoulli
from .labels import Labelled, balanced
from .shapes import FACTORS, Sprites, sprites
from .sources import NAMES, open_source
from .splits import Splits, load_data
from .tables import TABLES, load_table
from .text import Vocabulary, couplets, sentences

__all__ = [
    "FACTORS",
    "NAMES",
    "TABLES",
    "Buckets",
    "Columns",
    "Data",
    "Images",
    "Items",
    "Labelled",
    "Loader",
    "NormalDraws",
    "Pixels",
    "Rolls",
    "Splits",
    "Sprites",
    "Vocabulary",
    "as_data",
    "balanced",
    "bernoulli",
    "couplets",
    "from_array",
    "load_chorales",
    "load_data",
    "load_table",
    "open_source",
    "read_folder",
    "rolls",
    "save_midi",
    "scales",
    "sentences",
    "sprites",
    "take",
]
