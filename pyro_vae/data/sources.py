"""Where data sets come from: each source gives all its images, and which rows are for what."""

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .images import Images, Pixels, from_array

TORCHVISION = {
    "mnist": "MNIST",
    "fashion_mnist": "FashionMNIST",
    "kmnist": "KMNIST",
    "emnist": "EMNIST",
    "omniglot": "Omniglot",
    "cifar10": "CIFAR10",
}


NAMES = ("digits", *TORCHVISION)


SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}


MODES = {"1": "L", "L": "L", "P": "RGB", "RGB": "RGB"}  # how each kind of image file is read


class Source(NamedTuple):
    """A data set before it is split."""

    images: Images
    pool: Tensor
    """Rows to learn from, of which the last are for validation."""
    test: Tensor
    """Rows to test on."""
    num_validation: int
    """How many of the pool are for validation unless the caller says otherwise."""


def open_source(name: str | Path, root: Path, seed: int, download: bool) -> Source:
    """Find a data set by its name or path; the errors are those of :func:`pyro_vae.data.splits.load`."""
    if name == "digits":
        return _digits(seed)
    if name in TORCHVISION:
        return _torchvision(str(name), root, seed, download)
    path = Path(name)
    if path.is_dir():
        return _shuffled(_folder(path), seed)
    is_array = path.suffix in (".npy", ".npz")
    if not path.exists() and (is_array or len(path.parts) > 1):
        raise FileNotFoundError(
            f"expected an array file or a folder of images, got {str(path)!r}, which does not exist"
        )
    if not is_array:
        raise ValueError(
            f"expected one of {', '.join(NAMES)}, an .npy or .npz file, or a folder of images, got {str(name)!r}"
        )
    return _npy(path, seed) if path.suffix == ".npy" else _npz(path, seed)


def _permutation(count: int, seed: int) -> Tensor:
    return torch.randperm(count, generator=torch.Generator("cpu").manual_seed(seed), device="cpu")


def _shuffled(
    images: Images, seed: int, num_validation: int | None = None, num_test: int | None = None
) -> Source:
    """Shuffle the rows; a tenth each for validation and test unless told otherwise."""
    tenth = max(round(len(images) / 10), 1)
    rows = _permutation(len(images), seed)
    cut = len(rows) - (tenth if num_test is None else num_test)
    return Source(
        images, rows[:cut], rows[cut:], tenth if num_validation is None else num_validation
    )


def _in_order(images: Images, num_test: int, num_validation: int) -> Source:
    """The last rows are for testing."""
    rows = torch.arange(len(images), device="cpu")
    cut = len(rows) - num_test
    return Source(images, rows[:cut], rows[cut:], num_validation)


def _digits(seed: int) -> Source:
    """1797 handwritten digits of 8 x 8 pixels, each the exact number (0..16) of set pixels in a 4 x 4 block (UCI, 1998)."""
    from sklearn.datasets import load_digits  # slow to import

    data = load_digits()
    values, labels = (
        torch.from_numpy(data.data).to(torch.uint8),
        torch.from_numpy(data.target).long(),
    )
    return _shuffled(
        Images(values, (1, 8, 8), Pixels.COUNTS, 16, labels), seed, num_validation=200, num_test=300
    )


def _torchvision(name: str, root: Path, seed: int, download: bool) -> Source:
    """One of torchvision's data sets, with its own test set."""
    train, test = (_read_torchvision(name, root, part, download) for part in (True, False))
    arrays, labels = (np.concatenate(pair) for pair in zip(train, test, strict=True))
    values = torch.from_numpy(arrays).flatten(1)
    channels, height, width = arrays.shape[1:]
    kind = Pixels.BYTES if name == "cifar10" else Pixels.DYNAMIC
    images = Images(values, (channels, height, width), kind, 255, torch.from_numpy(labels))
    source = _in_order(images, len(test[0]), 5000)
    if name == "omniglot":  # sorted by alphabet: the validation images come from all of them
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
            f"expected the data set {name!r} in torchvision's layout under the folder {str(root)!r}, found none: "
            f"give the folder that holds it, or fetch it with download=True (--download)"
        ) from error
    if name == "omniglot":
        return _omniglot(data)
    array, labels = np.asarray(data.data), np.asarray(data.targets, dtype=np.int64)
    if name == "cifar10":
        return array.transpose(0, 3, 1, 2), labels
    return (array.swapaxes(1, 2) if name == "emnist" else array)[
        :, None
    ], labels  # EMNIST's files hold transposed images


def _constructor(name: str) -> Callable[..., Any]:
    """The class of a torchvision data set; torchvision is imported here alone, as it may be missing, or not fit torch."""
    try:
        from torchvision import datasets
    except (ImportError, RuntimeError, OSError, AttributeError) as error:
        raise ImportError(
            f"expected a torchvision that fits torch {torch.__version__} for the data set {name!r}, got {error!r}: "
            f"install one from the same index as torch; 'digits', arrays and folders of images work without it"
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
    """The array of an ``.npy`` file, or the dictionary of arrays of an ``.npz`` file; pickled objects are refused: they run code."""
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
    """One array ``x`` to be shuffled, or the parts as they are."""
    arrays = _read(path)
    if "x" in arrays:
        return _shuffled(from_array(arrays["x"], arrays.get("y")), seed)
    if not {"train", "test"} <= arrays.keys():
        raise ValueError(
            f"expected arrays named x (and y), or train, test (and validation), in {str(path)!r}, got {sorted(arrays)}"
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


def _folder(folder: Path) -> Images:
    """Every image file below a folder, in the order of their names."""
    paths = sorted(
        p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and not p.name.startswith(".")
    )
    if not paths:
        raise ValueError(
            f"expected images ({', '.join(sorted(SUFFIXES))}) in the folder {str(folder)!r}, got none"
        )
    arrays = [_read_image(path) for path in paths]
    for path, array in zip(paths, arrays, strict=True):
        if array.shape != arrays[0].shape:
            raise ValueError(
                f"expected images of one size, got {arrays[0].shape} in {str(paths[0])!r} and {array.shape} in {str(path)!r}"
            )
    classes = [path.relative_to(folder).parts[0] for path in paths]
    order = {name: index for index, name in enumerate(sorted(set(classes)))}
    flat = any(path.parent == folder for path in paths)
    stacked = np.stack(arrays)  # 8bit whatever the values: files hold bytes
    values = torch.from_numpy(
        stacked if stacked.ndim == 3 else stacked.transpose(0, 3, 1, 2).copy()
    ).flatten(1)
    height, width, *channels = arrays[0].shape
    labels = None if flat else torch.tensor([order[name] for name in classes], device="cpu")
    return Images(
        values, (channels[0] if channels else 1, height, width), Pixels.BYTES, 255, labels
    )


def _read_image(path: Path) -> np.ndarray[Any, Any]:
    """An image file as (H, W) or (H, W, 3) uint8."""
    try:
        with Image.open(path) as image:
            if image.mode not in MODES:
                raise ValueError(f"its mode is {image.mode}, not one of {', '.join(MODES)}")
            return np.asarray(image.convert(MODES[image.mode]))
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(
            f"expected a readable grey or RGB image, got {str(path)!r}: {error}"
        ) from error
