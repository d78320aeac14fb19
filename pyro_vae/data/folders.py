"""Images from folders of files."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from .images import Images, Pixels

SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}

MODES = {"1": "L", "L": "L", "P": "RGB", "RGB": "RGB"}
"""The reading mode for each kind of image file."""


def read_folder(folder: Path) -> Images:
    """Read every image file below a folder, in the order of their names.

    Pixels are 8bit, whatever their values; they are static if every file has one bit per pixel. If
    every image is in a subfolder, the subfolders are the classes and give their names.

    Raises ``ValueError`` where there are no images, an image is damaged or is not grey or RGB with
    8 bits, or sizes differ.
    """
    found = (path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    paths = sorted(path for path in found if not path.name.startswith("."))
    if not paths:
        raise ValueError(
            f"expected images ({', '.join(sorted(SUFFIXES))}) in the folder {str(folder)!r}, "
            "got none"
        )
    arrays, modes = zip(*map(_read_image, paths), strict=True)
    for path, array in zip(paths, arrays, strict=True):
        if array.shape != arrays[0].shape:
            raise ValueError(
                f"expected images of one size, got {arrays[0].shape} in {str(paths[0])!r} "
                f"and {array.shape} in {str(path)!r}"
            )
    stacked = np.stack(arrays)  # (N, H, W) or (N, H, W, 3)
    planes = stacked[:, None] if stacked.ndim == 3 else stacked.transpose(0, 3, 1, 2)
    values = torch.from_numpy(planes.copy()).flatten(1)
    channels, height, width = planes.shape[1:]
    shape = (channels, height, width)
    labels, classes = _classes(folder, paths)
    if set(modes) == {"1"}:
        return Images(values // 255, shape, Pixels.STATIC, 1, labels, classes)
    return Images(values, shape, Pixels.BYTES, 255, labels, classes)


def _classes(folder: Path, paths: list[Path]) -> tuple[torch.Tensor | None, tuple[str, ...]]:
    """The number of each image's subfolder and the names; none if an image is in no subfolder."""
    if any(path.parent == folder for path in paths):
        return None, ()
    names = [path.relative_to(folder).parts[0] for path in paths]
    classes = tuple(sorted(set(names)))
    return torch.tensor([classes.index(name) for name in names], device="cpu"), classes


def _read_image(path: Path) -> tuple[np.ndarray[Any, Any], str]:
    """An image file as (H, W) or (H, W, 3) uint8, and its mode."""
    try:
        with Image.open(path) as image:
            if image.mode not in MODES:
                raise ValueError(
                    f"its mode is {image.mode}, not one of {', '.join(MODES)}: convert it, for "
                    f"example {_conversion(image.mode)} with Pillow"
                )
            return np.asarray(image.convert(MODES[image.mode])), image.mode
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(
            f"expected a readable grey or RGB image, got {str(path)!r}: {error}"
        ) from error


def _conversion(mode: str) -> str:
    """The code that converts an image of another kind to 8 bits."""
    if mode.startswith(("I", "F")):  # more than 8 bits, which convert("L") would cut off
        return 'Image.fromarray((numpy.asarray(image) // 256).astype("uint8"))'
    return f'image.convert("{"L" if mode == "LA" else "RGB"}")'
