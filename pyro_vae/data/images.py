"""Images in memory, and the pixels a program observes of them.

The same grey image gives several data sets, whose log p(x) must never be compared: pixels say which one a number is about.
"""

import math
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import numpy as np
import torch
from torch import Tensor

ROWS = 4096  # images converted at a time, so that temporaries stay small


class Pixels(StrEnum):
    """What a program observes of an image with values v in 0..levels."""

    STATIC = "static"
    """x ~ Bernoulli(v / levels), drawn once with a fixed seed of our own ("own static"), or data that came binary."""
    DYNAMIC = "dynamic"
    """x ~ Bernoulli(v / levels), drawn anew at every visit."""
    THRESHOLD = "threshold"
    """x = 1 where v / levels >= 1/2, else 0."""
    GREY = "grey"
    """x = v / levels, in [0, 1]."""
    COUNTS = "counts"
    """x = v, the integers 0..levels."""
    BYTES = "8bit"
    """x = v, the integers 0..255."""

    @classmethod
    def _missing_(cls, value: object) -> None:
        raise ValueError(f"expected pixels to be one of {', '.join(cls)}, got {value!r}")


BINARY = (Pixels.STATIC, Pixels.THRESHOLD)


INTEGER = (Pixels.COUNTS, Pixels.BYTES)


@dataclass(frozen=True, eq=False)
class Images:
    """N images of D = C H W pixels, with the kind of pixels a program observes of them.

    Raises ``ValueError`` or ``TypeError`` where values, shape, levels, labels and pixels do not fit together.

    >>> images = Images(torch.tensor([[0, 128, 255, 64]], dtype=torch.uint8), (1, 2, 2), Pixels.GREY, levels=255)
    >>> images.as_pixels("threshold").all()
    tensor([[0., 1., 1., 0.]])
    """

    values: Tensor
    """(N, D), uint8 in 0..levels; float32 in [0, 1] (with one level) only where 8 bits cannot hold them."""
    shape: tuple[int, int, int]
    """(C, H, W)."""
    pixels: Pixels
    levels: int
    """The largest possible value: 1, 16, 255."""
    labels: Tensor | None = None
    """(N,), int64."""

    def __post_init__(self) -> None:
        _check_values(self.values, self.shape, self.levels)
        _check_labels(self.labels, len(self))
        if self.pixels in (*BINARY, *INTEGER) and self.values.is_floating_point():
            raise ValueError(
                f"expected integer values for {self.pixels} pixels, got {self.values.dtype}"
            )
        if self.pixels in BINARY and self.levels != 1:
            raise ValueError(
                f"expected values 0 and 1 for {self.pixels} pixels, got levels 0..{self.levels}"
            )
        if self.pixels == Pixels.BYTES and self.levels != 255:
            raise ValueError(f"expected levels 0..255 for 8bit pixels, got 0..{self.levels}")

    def __len__(self) -> int:
        return len(self.values)

    def batch(self, indices: Tensor) -> Tensor:
        """Return what a program observes of some images, (B, D) float32, on the device of the values.

        Dynamic pixels are drawn anew, from the device's default random numbers.
        """
        return self._observe(self.values.index_select(0, indices.to(self.values.device)))

    def all(self) -> Tensor:
        """Return the batch of every image, (N, D)."""
        return self._observe(self.values)

    def subset(self, index: Tensor | slice) -> "Images":
        """Return some of the images; a slice shares their memory."""
        return replace(
            self,
            values=self.values[index],
            labels=None if self.labels is None else self.labels[index],
        )

    def to(self, device: torch.device | str) -> "Images":
        """Return the images on another device."""
        return replace(
            self,
            values=self.values.to(device),
            labels=None if self.labels is None else self.labels.to(device),
        )

    def mean(self) -> Tensor:
        """Return the mean intensity E[v / levels] of each pixel, (D,), in [0, 1]: where an output's bias may start."""
        if not len(self):
            raise ValueError("expected at least one image to take the mean of, got none")
        return self.values.sum(0).float() / (len(self) * self.levels)

    def as_pixels(self, pixels: Pixels | str, seed: int = 0) -> "Images":
        """Return the same images with another kind of pixels.

        Static pixels are drawn here, once, from ``seed`` alone: the same on every device, and no other random numbers move.
        Raises ``ValueError`` where the images lack what the kind needs: binary pixels have lost their intensities.
        """
        kind = Pixels(pixels)
        if kind == self.pixels:
            return self
        if self.pixels in BINARY:
            raise ValueError(
                f"expected images with intensities to make {kind} pixels of, got binary ({self.pixels}) ones"
            )
        if kind not in BINARY:
            return replace(self, pixels=kind)
        generator = torch.Generator("cpu").manual_seed(seed)
        chunks = torch.split(self.values.cpu(), ROWS)
        bits = [
            bernoulli(v, self.levels, generator) if kind == Pixels.STATIC else v >= self.levels / 2
            for v in chunks
        ]
        return replace(
            self, values=torch.cat(bits).to(self.values.device, torch.uint8), pixels=kind, levels=1
        )

    def _observe(self, values: Tensor) -> Tensor:
        if self.pixels == Pixels.DYNAMIC:
            return bernoulli(values, self.levels)
        return values.float() / self.levels if self.pixels == Pixels.GREY else values.float()


def bernoulli(values: Tensor, levels: int, generator: torch.Generator | None = None) -> Tensor:
    """Draw x ~ Bernoulli(v / levels) for every value, as float32.

    u < v for u uniform on (0, levels): v = 0 never lights a pixel and v = levels always does. The u have 16 bits, four to a
    random number, so that the probabilities are right to 8e-6; on one core 128 x 784 pixels take 0.10 ms, half as long as
    with ``torch.rand``.

    >>> bernoulli(torch.tensor([0, 255], dtype=torch.uint8), 255)
    tensor([0., 1.])
    """
    words = torch.empty(-(-values.numel() // 4), dtype=torch.int64, device=values.device).random_(
        -(2**63), None, generator=generator
    )
    u = words.view(torch.int16)[: values.numel()].view(values.shape)  # -2^15, ..., 2^15 - 1
    step = levels / 2**16
    return (u * step).add_((levels + step) / 2).lt_(values)


def from_array(array: Any, labels: Any = None) -> Images:
    """Return the images of an array (N, D), (N, H, W), (N, C, H, W) or (N, H, W, C), with C = 1 or 3.

    Values that are all 0 or 1 are binary (static), other integers in 0..255 are 8bit, floats in [0, 1] are grey. A flat D
    that is a square is taken for a square image.
    Raises ``TypeError`` for other types, ``ValueError`` for other shapes, NaN, and values out of range.

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
            f"expected images of shape (N, D), (N, H, W), (N, C, H, W) or (N, H, W, C) with C = 1 or 3, and at least one, got {array.shape}"
        )
    return array


def _encode(array: np.ndarray[Any, Any]) -> tuple[Tensor, Pixels, int]:
    """The values of an array as (uint8 or float32 values, kind, levels)."""
    low, high = array.min(), array.max()
    if bool(((array == 0) | (array == 1)).all()):
        return torch.from_numpy(array.astype(np.uint8)), Pixels.STATIC, 1
    top = 1 if array.dtype.kind == "f" else 255
    if not (low >= 0 and high <= top):  # NaN fails too
        raise ValueError(
            f"expected {array.dtype} pixels in [0, {top}], got values in [{low:g}, {high:g}]"
        )
    if top == 255:
        return torch.from_numpy(array.astype(np.uint8)), Pixels.BYTES, 255
    floats = torch.from_numpy(array.astype(np.float32))
    whole = (floats * 255).round().to(torch.uint8)
    exact = torch.equal(whole.float() / 255, floats)  # these were 8-bit images: keep them so
    return (whole, Pixels.GREY, 255) if exact else (floats, Pixels.GREY, 1)


def _as_labels(labels: Any) -> Tensor:
    array = np.asarray(labels)
    if array.dtype.kind not in "bui":
        raise TypeError(f"expected integer labels, got {array.dtype}")
    return torch.from_numpy(array.astype(np.int64))


def _check_values(values: Tensor, shape: tuple[int, int, int], levels: int) -> None:
    if values.dtype not in (torch.uint8, torch.float32):
        raise TypeError(f"expected values of torch.uint8 or torch.float32, got {values.dtype}")
    if len(shape) != 3 or values.ndim != 2 or values.shape[1] != math.prod(shape):
        raise ValueError(
            f"expected values of shape (N, C * H * W) with (C, H, W) = {tuple(shape)}, got {tuple(values.shape)}"
        )
    top = 1 if values.is_floating_point() else 255
    if not 1 <= levels <= top:
        raise ValueError(f"expected levels in 1..{top} for {values.dtype} values, got {levels}")
    if len(values):
        low, high = (bound.item() for bound in values.aminmax())
        if not (low >= 0 and high <= levels):  # NaN fails too
            raise ValueError(f"expected values in [0, {levels}], got values in [{low:g}, {high:g}]")


def _check_labels(labels: Tensor | None, count: int) -> None:
    if labels is not None and labels.shape != (count,):
        raise ValueError(
            f"expected one label for each of {count} images, got labels of shape {tuple(labels.shape)}"
        )
