"""Sources of data sets: each gives all images, and the rows of each part of the split."""

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .arrays import from_array
from .folders import read_folder
from .images import Images, Pixels

TORCHVISION = {
    "mnist": "MNIST",
    "fashion_mnist": "FashionMNIST",
    "kmnist": "KMNIST",
    "emnist": "EMNIST",
    "omniglot": "Omniglot",
    "cifar10": "CIFAR10",
}

NAMES = ("digits", *TORCHVISION)


class Source(NamedTuple):
    """A data set before it is split."""

    images: Images
    pool: Tensor
    """The rows for training and validation; the last of them are for validation."""
    test: Tensor
    """The rows for testing."""
    num_validation: int
    """The default number of rows of the pool that are for validation."""


def open_source(name: str | Path, root: Path, seed: int, download: bool) -> Source:
    """Find a data set by its name or path.

    The errors are those of :func:`pyro_vae.data.splits.load_data`.
    """
    if name == "digits":
        return _digits(seed)
    if name in TORCHVISION:
        return _torchvision(str(name), root, seed, download)
    path = Path(name)
    if path.is_dir():
        return _shuffled(read_folder(path), seed)
    is_array = path.suffix in (".npy", ".npz")
    if not path.exists() and (is_array or len(path.parts) > 1):
        raise FileNotFoundError(
            f"expected an array file or a folder of images, got {str(path)!r}, which does not exist"
        )
    if not is_array:
        raise ValueError(
            f"expected one of {', '.join(NAMES)}, an .npy or .npz file, or a folder of images, "
            f"got {str(name)!r}"
            + (": read a table into an array and give it to fit" if path.is_file() else "")
        )
    return _npy(path, seed) if path.suffix == ".npy" else _npz(path, seed)


def _permutation(count: int, seed: int) -> Tensor:
    return torch.randperm(count, generator=torch.Generator("cpu").manual_seed(seed), device="cpu")


def _shuffled(
    images: Images, seed: int, num_validation: int | None = None, num_test: int | None = None
) -> Source:
    """Shuffle the rows; by default a tenth is for validation and a tenth for testing."""
    if len(images) < 2:
        raise ValueError(
            f"expected at least 2 images, one to train and one to test on, got {len(images)}"
        )
    tenth = max(round(len(images) / 10), 1)
    rows = _permutation(len(images), seed)
    cut = len(rows) - (tenth if num_test is None else num_test)
    default = min(tenth, cut - 1)  # two images leave none for validation
    return Source(
        images, rows[:cut], rows[cut:], default if num_validation is None else num_validation
    )


def _in_order(images: Images, num_test: int, num_validation: int) -> Source:
    """Keep the order of the rows; the last are for testing."""
    rows = torch.arange(len(images), device="cpu")
    cut = len(rows) - num_test
    return Source(images, rows[:cut], rows[cut:], num_validation)


def _digits(seed: int) -> Source:
    """1797 handwritten digits of 8 x 8 pixels (UCI, 1998).

    A pixel, 0..16, is the number of set pixels in a block of 4 x 4 of the scanned bitmap.
    """
    from sklearn.datasets import load_digits  # slow to import

    data = load_digits()
    values = torch.from_numpy(data.data).to(torch.uint8)
    labels = torch.from_numpy(data.target).long()
    images = Images(values, (1, 8, 8), Pixels.COUNTS, 16, labels)
    return _shuffled(images, seed, num_validation=200, num_test=300)


def _torchvision(name: str, root: Path, seed: int, download: bool) -> Source:
    """One of torchvision's data sets, with its own test set."""
    train, test = (_read_torchvision(name, root, part, download) for part in (True, False))
    arrays, labels = (np.concatenate(pair) for pair in zip(train, test, strict=True))
    values = torch.from_numpy(arrays).flatten(1)
    channels, height, width = arrays.shape[1:]
    kind = Pixels.BYTES if name == "cifar10" else Pixels.DYNAMIC
    images = Images(values, (channels, height, width), kind, 255, torch.from_numpy(labels))
    source = _in_order(images, len(test[0]), 5000)
    if name == "omniglot":  # sorted by alphabet; validation images must come from all alphabets
        pool = source.pool[_permutation(len(source.pool), seed)]
        return source._replace(pool=pool, num_validation=len(pool) // 10)
    return source


def _read_torchvision(
    name: str, root: Path, train: bool, download: bool
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The images (N, C, H, W) uint8 and labels (N,) of one part of a data set, ink = 255."""
    constructor = _constructor(name)
    part: dict[str, Any] = {"background" if name == "omniglot" else "train": train}
    if name == "emnist":
        part["split"] = "balanced"
    try:
        data = constructor(str(root), download=download, **part)
    except (RuntimeError, AssertionError, ValueError, EOFError) as error:
        if "not found" not in str(error):
            raise ValueError(
                f"expected readable files of {name!r} under the folder {str(root)!r}, got {error!r}"
            ) from error
        raise FileNotFoundError(
            f"expected the data set {name!r} in torchvision's layout under the folder "
            f"{str(root)!r}, found none: give the folder that holds it, or fetch it with "
            "download=True (--download)"
        ) from error
    if name == "omniglot":
        return _omniglot(data)
    array = np.asarray(data.data)
    labels = np.asarray(data.targets, dtype=np.int64)
    if name == "cifar10":
        return array.transpose(0, 3, 1, 2), labels
    upright = array.swapaxes(1, 2) if name == "emnist" else array  # EMNIST's are transposed
    return upright[:, None], labels


def _constructor(name: str) -> Callable[..., Any]:
    """The class of a torchvision data set.

    Torchvision is imported only here, because it may be missing or not fit the version of torch.
    """
    try:
        from torchvision import datasets
    except (ImportError, RuntimeError, OSError, AttributeError) as error:
        raise ImportError(
            f"expected a torchvision that fits torch {torch.__version__} for the data set "
            f"{name!r}, got {error!r}: install one from the same index as torch; 'digits', arrays "
            "and folders of images work without it"
        ) from error
    constructor: Callable[..., Any] = getattr(datasets, TORCHVISION[name])
    return constructor


def _omniglot(data: Any) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The drawings, 105 x 105 and black on white, as 28 x 28 block averages with ink = 255."""
    pairs = [
        (255 - np.asarray(image.resize((28, 28), Image.Resampling.BOX)), label)
        for image, label in data
    ]
    images, labels = zip(*pairs, strict=True)
    return np.stack(images)[:, None], np.asarray(labels, dtype=np.int64)


def _read(path: Path) -> Any:
    """The array of an ``.npy`` file, or the arrays by name of an ``.npz`` file.

    Pickled objects are refused, because they run code.
    """
    try:
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            return loaded if isinstance(loaded, np.ndarray) else dict(loaded)
    except (ValueError, OSError, EOFError, BadZipFile, zlib.error) as error:
        raise ValueError(
            f"expected a readable array file without pickled objects, got {str(path)!r}: {error}"
        ) from error


def _npy(path: Path, seed: int) -> Source:
    return _shuffled(from_array(_read(path)), seed)


def _npz(path: Path, seed: int) -> Source:
    """Read one array ``x``, which is shuffled, or the parts of a split, which keep their order."""
    arrays = _read(path)
    if "x" in arrays:
        return _shuffled(from_array(arrays["x"], arrays.get("y")), seed)
    if not {"train", "test"} <= arrays.keys():
        raise ValueError(
            "expected arrays named x (and y), or train, test (and validation), "
            f"in {str(path)!r}, got {sorted(arrays)}"
        )
    parts = [part for part in ("train", "validation", "test") if part in arrays]
    shapes = {part: arrays[part].shape[1:] for part in parts}
    if len(set(shapes.values())) > 1:
        raise ValueError(f"expected images of one shape in {str(path)!r}, got {shapes}")
    named = [f"{part}_labels" for part in parts]
    labels = (
        np.concatenate([arrays[part] for part in named]) if set(named) <= arrays.keys() else None
    )
    images = from_array(np.concatenate([arrays[part] for part in parts]), labels)
    num_test = len(arrays["test"])
    held_out = (
        len(arrays["validation"])
        if "validation" in arrays
        else round((len(images) - num_test) / 10)
    )
    return _in_order(images, num_test, held_out)
