"""Images from arrays of any usual shape and type."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .images import Images, Pixels


def from_array(array: Any, labels: Any = None) -> Images:
    """Return the images of an array.

    Shapes are (N, D), (N, H, W), (N, C, H, W) or (N, H, W, C), with C = 1 or 3. A flat D that is a
    square number becomes a square image. Values that are all 0 or 1 are binary (static), other
    integers in 0..255 are 8bit, floats in [0, 1] are grey.
    Raises ``TypeError`` for other types, ``ValueError`` for other shapes, NaN, and values out of
    range.

    >>> from_array([[[0, 255], [7, 9]]]).pixels
    <Pixels.BYTES: '8bit'>
    """
    array = np.asarray(array)
    if array.dtype.kind not in "buif":
        raise TypeError(f"expected an array of bool, integers or floats, got {array.dtype}")
    array = _channels_first(array)
    values, pixels, levels = _encode(array.reshape(len(array), -1))
    channels, height, width = array.shape[1:]
    return Images(
        values,
        (channels, height, width),
        pixels,
        levels,
        None if labels is None else _as_labels(labels),
    )


def _channels_first(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The array as (N, C, H, W)."""
    if array.ndim == 2 and array.size:
        side = math.isqrt(array.shape[1])
        array = array.reshape(
            len(array), 1, *((side, side) if side**2 == array.shape[1] else (1, -1))
        )
    if array.ndim == 3:
        array = array[:, None]
    if array.ndim == 4 and array.shape[1] not in (1, 3) and array.shape[3] in (1, 3):
        array = array.transpose(0, 3, 1, 2)
    if array.ndim != 4 or array.shape[1] not in (1, 3) or not array.size:
        raise ValueError(
            "expected images of shape (N, D), (N, H, W), (N, C, H, W) or (N, H, W, C) "
            f"with C = 1 or 3, and at least one, got {array.shape}"
        )
    return array


def _encode(array: np.ndarray[Any, Any]) -> tuple[Tensor, Pixels, int]:
    """The values of an array as (uint8 or float32 values, kind, levels)."""
    low = array.min()
    high = array.max()
    if bool(((array == 0) | (array == 1)).all()):
        return torch.from_numpy(array.astype(np.uint8)), Pixels.STATIC, 1
    top = 1 if array.dtype.kind == "f" else 255
    if not (low >= 0 and high <= top):  # NaN fails too
        raise ValueError(
            f"expected {array.dtype} pixels in [0, {top}], got values in [{low:g}, {high:g}]: "
            "columns of other numbers are no images, give the array itself to fit"
        )
    if top == 255:
        return torch.from_numpy(array.astype(np.uint8)), Pixels.BYTES, 255
    floats = torch.from_numpy(array.astype(np.float32))
    whole = (floats * 255).round().to(torch.uint8)
    exact = torch.equal(whole.float() / 255, floats)  # true for floats made from 8-bit images
    return (whole, Pixels.GREY, 255) if exact else (floats, Pixels.GREY, 1)


def _as_labels(labels: Any) -> Tensor:
    array = np.asarray(labels)
    if array.dtype.kind not in "bui":
        raise TypeError(f"expected integer labels, got {array.dtype}")
    return torch.from_numpy(array.astype(np.int64))
