"""Data sets by name: scikit-learn's digits, torchvision's sets, arrays, folders of images.

All images are in memory; batches are read by index, without a ``DataLoader``:

>>> import torch
>>> train, validation, test = load_data("digits")
>>> for indices in torch.randperm(len(train)).split(128):
...     x = train.batch(indices)
>>> len(train), len(validation), len(test), train.pixels
(1297, 200, 300, <Pixels.COUNTS: 'counts'>)
"""

from pathlib import Path
from typing import NamedTuple

from .images import Images, Pixels
from .sources import open_source


class Splits(NamedTuple):
    """The three parts of a data set."""

    train: Images
    validation: Images
    test: Images


def load_data(
    name: str | Path,
    root: Path | str | None = None,
    *,
    pixels: Pixels | str | None = None,
    validation_size: int | float | None = None,
    seed: int = 0,
    download: bool = False,
) -> Splits:
    """Load a data set and split it; the same call gives the same images.

    - ``name``: one of :data:`NAMES`, or the path of a file or folder. An ``.npy`` file holds all
      images. An ``.npz`` file holds ``x`` and optionally ``y``; or ``train``, ``test`` and
      optionally ``validation``, ``train_labels``, ``validation_labels``, ``test_labels``. In a
      folder of images, the subfolders are the classes if every image is in one.
    - ``root``: the folder of torchvision's data sets, by default ``data``; ``download`` fetches
      them into it.
    - ``pixels``: the kind of pixels. By default digits are counts, CIFAR10 is 8bit, and the other
      named sets are dynamic; see :func:`from_array` for the rest.
    - ``validation_size``: the number of validation images (an int), or their fraction of all images
      that are not for testing (a float).
    - ``seed``: shuffles digits, arrays and folders; a tenth of them is for validation and a tenth
      for testing. The other named sets keep their own test set.

    Where the training set is *dynamic*, the pixels of validation and test set are drawn once with
    ``seed``, so that an evaluation can be repeated. They are static: the same images as those of
    the same call with ``pixels="static"``.

    Raises ``ValueError`` for an unknown name, unreadable files or other wrong values, ``TypeError``
    for arrays of wrong types, ``FileNotFoundError`` for missing files and ``ImportError`` without
    torchvision.
    """
    kind = None if pixels is None else Pixels(pixels)
    images, pool, test, num_validation = open_source(
        name, Path("data" if root is None else root), seed, download
    )
    images = images if kind is None else images.as_pixels(kind, seed)
    fixed = images.as_pixels(Pixels.STATIC, seed) if images.pixels == Pixels.DYNAMIC else images
    cut = len(pool) - _count(
        num_validation if validation_size is None else validation_size, len(pool)
    )
    return Splits(images.subset(pool[:cut]), fixed.subset(pool[cut:]), fixed.subset(test))


def _count(size: int | float, available: int) -> int:
    """The number of validation images that ``size`` asks for."""
    count = round(size * available) if isinstance(size, float) and 0 <= size <= 1 else size
    if not (0 <= count < available and count == int(count)):
        raise ValueError(
            f"expected a validation_size of 0 to {available - 1} images, or a fraction that "
            f"leaves one to train on, got {size}"
        )
    return int(count)
