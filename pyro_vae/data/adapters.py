"""Training data: arrays, tensors, torch's data sets and loaders, as batches of arguments.

An *argument* is one of the values that model and guide are called with: x, a mask, labels, rows.
"""

import warnings
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    TensorDataset,
    default_collate,
)

CHECKED = 1 << 22
"""How many numbers are looked at together: all of them may not fit into memory."""

GROUP_BYTES = 6 << 20
"""The size of several batches that are taken together."""

Batch = tuple[Tensor, ...]
"""The arguments of model and guide for some data."""


class Data(Protocol):
    """Data in memory, read in batches by index, such as :class:`pyro_vae.data.images.Images`."""

    def __len__(self) -> int: ...

    def batch(self, indices: Tensor) -> Tensor | Batch:
        """Return the arguments of model and guide for some data.

        The indices are on the device of the weights, and the arguments must be on this device too.
        Random draws, if any, come from torch's default generators.
        """
        ...


def take(data: Data, indices: Tensor) -> Batch:
    """Return some data as a tuple of arguments.

    >>> [part.shape for part in take(as_data((torch.zeros(5, 3), torch.ones(5))), torch.arange(2))]
    [torch.Size([2, 3]), torch.Size([2])]
    """
    batch = data.batch(indices)
    return (batch,) if isinstance(batch, Tensor) else batch


def together(indices: Sequence[Tensor], row_bytes: int) -> Iterator[Sequence[Tensor]]:
    """Several batches of indices at a time, whose rows have ``GROUP_BYTES`` together, or one.

    >>> [len(some) for some in together([torch.arange(128)] * 20, row_bytes=4 * 784)]
    [15, 5]
    """
    size = row_bytes * max((len(each) for each in indices), default=1)
    number = max(GROUP_BYTES // max(size, 1), 1)
    for start in range(0, len(indices), number):
        yield indices[start : start + number]


class Columns:
    """Tensors (N, ...) of equal length N, one for each argument of the programs.

    Raises ``ValueError`` where lengths differ, or a tensor is a single number or not finite.

    >>> Columns(torch.arange(6.0).view(3, 2)).batch(torch.tensor([2, 0]))
    (tensor([[4., 5.],
            [0., 1.]]),)
    """

    def __init__(self, *columns: Tensor) -> None:
        for number, column in enumerate(columns, 1):
            _check_column(column, "data" if len(columns) == 1 else f"argument {number}")
        lengths = [len(column) for column in columns]
        if len(set(lengths)) != 1:
            raise ValueError(f"expected arguments of equal length, got lengths {lengths}")
        self.columns = columns

    def __len__(self) -> int:
        return len(self.columns[0])

    def batch(self, indices: Tensor) -> Batch:
        return tuple(
            column.index_select(0, indices.to(column.device)).to(indices.device)
            for column in self.columns
        )

    def batches(self, indices: Sequence[Tensor]) -> Iterator[list[Batch]]:
        """Yield several batches at a time."""
        for some in together(indices, sum(column[:1].nbytes for column in self.columns)):
            yield [self.batch(each) for each in some]


class Items:
    """A map-style ``torch.utils.data.Dataset``; its items are collated as a ``DataLoader`` does.

    Raises ``TypeError`` for a data set without a length, or items that cannot be collated.
    """

    def __init__(self, dataset: Dataset[Any]) -> None:
        if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__len__"):
            raise TypeError(
                "expected a Dataset with a length and an item for each index, "
                f"got {type(dataset).__name__}"
            )
        self.dataset = dataset
        self.length = len(dataset)

    def __len__(self) -> int:
        return self.length

    def batch(self, indices: Tensor) -> Batch:
        items = [self.dataset[index] for index in indices.tolist()]
        try:
            return _arguments(default_collate(items), "Dataset", indices.device)
        except (TypeError, RuntimeError) as error:
            raise TypeError(
                "expected items of the Dataset to be tensors, arrays or numbers of equal shapes, "
                f"or tuples of them, got {type(items[0]).__name__}: {error}"
            ) from error


class Loader:
    """A ``torch.utils.data.DataLoader``: one pass over it is one epoch.

    It chooses the order and the batch size itself. So a run cannot be resumed in the middle of an
    epoch, and the data are not divided among processes.

    Raises ``TypeError`` for a loader without a length or a fixed batch size.
    """

    def __init__(self, loader: DataLoader[Any]) -> None:
        if isinstance(loader.dataset, IterableDataset) or loader.batch_size is None:
            raise TypeError(
                "expected a DataLoader of a Dataset with a length, with a batch_size and without "
                f"a batch_sampler, got one of {type(loader.dataset).__name__} "
                f"with batch_size {loader.batch_size}"
            )
        self.loader = loader
        self.batch_size = loader.batch_size
        count = len(loader.sampler)  # type: ignore[arg-type]
        self.length = count - count % self.batch_size if loader.drop_last else count

    def __len__(self) -> int:
        """Return the number of data in one pass."""
        return self.length

    def batches(self, device: torch.device) -> Iterator[Batch]:
        """Make one pass; raise ``ValueError`` where its sizes differ from those of the loader."""
        left = self.length
        for collated in self.loader:
            batch = _arguments(collated, "DataLoader", device)
            expected = min(self.batch_size, left)
            got = len(batch[0])
            if got != expected:
                raise ValueError(f"expected a batch of {expected} from the DataLoader, got {got}")
            left -= got
            yield batch
        if left:
            seen = self.length - left
            raise ValueError(f"expected {self.length} data from the DataLoader, got {seen}")


def as_data(data: Any) -> Data | Loader:
    """Return anything that can be trained on as :class:`Data`, or a ``DataLoader`` as a Loader.

    - a tensor or a NumPy array, one row per datum: the argument x. Floats of an array become
      torch's default floating-point type (float32), as weights have it; tensors stay as they are.
      A memory map of float32 is not copied;
    - a tuple of them: the arguments, such as ``(x, mask)``, ``(x, labels)`` or ``(x, rows)``;
    - a ``Dataset`` or ``DataLoader`` of tensors or of tuples: every item of a tuple is an argument;
    - :class:`pyro_vae.data.images.Images`, or any object with ``len`` and ``batch(indices)``.

    Raises ``TypeError`` for anything else, ``ValueError`` where lengths differ, or a tensor or
    array holds values that are not finite.

    >>> len(as_data((np.zeros((3, 2)), np.ones((3, 2), bool))))
    3
    """
    if isinstance(data, DataLoader):
        return Loader(data)
    if isinstance(data, TensorDataset):
        return Columns(*data.tensors)
    if isinstance(data, (Tensor, np.ndarray)):
        return Columns(_tensor(data))
    if isinstance(data, tuple) and data:
        return Columns(*map(_tensor, data))
    if callable(getattr(data, "batch", None)) and hasattr(data, "__len__"):
        found: Data = data
        return found
    if isinstance(data, Dataset):
        return Items(data)
    raise TypeError(f"{_EXPECTED}, got {_describe(data)}")


_EXPECTED = (
    "expected data as a tensor, a NumPy array, a tuple of them, a Dataset, a DataLoader, "
    "or an object with len and batch(indices)"
)


def _describe(data: Any) -> str:
    return "an empty tuple" if data == () else f"a {type(data).__name__}"


def _tensor(value: Any) -> Tensor:
    """A tensor as it is; an array as a tensor, its floats in torch's default type."""
    if isinstance(value, Tensor):
        return value
    if not isinstance(value, np.ndarray):
        raise TypeError(f"{_EXPECTED}, got a tuple with {_describe(value)}")
    if value.dtype.kind not in "buif":
        raise TypeError(f"expected an array of bool, integers or floats, got {value.dtype}")
    if value.dtype.kind == "u" and value.dtype.itemsize > 1:
        value = value.astype(np.int64)  # torch supports larger unsigned types only in part
    with warnings.catch_warnings():  # a memory map may be read-only, and batches only read it
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        tensor = torch.from_numpy(np.ascontiguousarray(value))
    return tensor.to(torch.get_default_dtype()) if tensor.is_floating_point() else tensor


def _check_column(column: Tensor, name: str) -> None:
    if column.ndim == 0:
        raise ValueError(f"expected {name} to have one row per datum, got a single number")
    if not column.is_floating_point():
        return
    width = column[:1].numel()
    parts = column.split(max(CHECKED // max(width, 1), 1))
    bad = torch.cat([~part.isfinite().reshape(len(part), width).all(1) for part in parts])
    if bad.any():
        raise ValueError(
            f"expected {name} to be finite, got NaN or infinity in {int(bad.sum())} of "
            f"{len(column)} rows, the first of them row {int(bad.int().argmax())}"
        )


def _arguments(collated: Any, source: str, device: torch.device) -> Batch:
    """The collated items as arguments on the device."""
    items = tuple(collated) if isinstance(collated, (tuple, list)) else (collated,)
    if not items or not all(isinstance(item, Tensor) and item.ndim for item in items):
        got = ", ".join(type(item).__name__ for item in items) or "an empty batch"
        raise TypeError(f"expected tensors, or tuples of tensors, from the {source}, got {got}")
    return tuple(item.to(device) for item in items)
