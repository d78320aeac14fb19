"""The arguments of a call as rows: which of its tensors have one row per datum, copies, slices.

Tensors among the arguments whose first dimension is the data plate's size are rows. Everything
else is passed on as it is. K draws of each datum are K copies of the rows, (K B, ...), so that no
network ever meets a dimension it was not written for.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils import _pytree as pytree

Call = tuple[tuple[Any, ...], dict[str, Any]]
"""Positional and keyword arguments."""


@dataclass(frozen=True)
class Rows:
    """Which leaves of a call are rows, and how many rows there are."""

    mask: tuple[bool, ...]
    size: int

    @classmethod
    def of(cls, call: Call, size: int) -> "Rows":
        """The tensors of a call whose first dimension is ``size``."""
        return cls(tuple(_length(leaf) == size for leaf in _leaves(call)), size)

    @classmethod
    def none(cls, call: Call) -> "Rows":
        """No rows: one datum is all."""
        return cls(tuple(False for _ in _leaves(call)), 1)

    def resized(self, call: Call) -> "Rows":
        """The same tensors of another call, however many rows they have there."""
        if not self.any:
            return self
        sizes = {len(leaf) for leaf, row in zip(_leaves(call), self.mask, strict=True) if row}
        if len(sizes) != 1:
            raise ValueError(f"expected one number of rows in all arguments, got {sorted(sizes)}")
        return Rows(self.mask, sizes.pop())

    @property
    def any(self) -> bool:
        """Whether the call has rows at all."""
        return any(self.mask)

    def apply(self, call: Call, function: Callable[[Tensor], Tensor]) -> Call:
        """The same call with a function of every tensor of rows in its place."""
        leaves = _leaves(call)
        changed = [
            function(leaf) if row else leaf for leaf, row in zip(leaves, self.mask, strict=True)
        ]
        if plain(call):
            return tuple(changed), {}
        args, kwargs = pytree.tree_unflatten(changed, pytree.tree_structure(call))
        return args, kwargs

    def copies(self, call: Call, number: int) -> Call:
        """``number`` copies of the rows, the data innermost: row k B + b is datum b."""
        return call if number == 1 else self.apply(call, lambda rows: copied(rows, number))

    def take(self, call: Call, index: Any) -> Call:
        """The same call for some of the data: ``index`` is a slice or a tensor of indices."""
        return self.apply(call, lambda rows: rows[index])


def copied(rows: Tensor, number: int) -> Tensor:
    """``number`` copies of rows (B, ...), as (number B, ...); of one datum without memory."""
    return rows.expand(number, *rows.shape).reshape(number * len(rows), *rows.shape[1:])


def candidates(call: Call) -> list[Rows]:
    """What may be the rows of a call: the tensors of each length, most of them first.

    Raises ``ValueError`` where no argument is a tensor with rows.
    """
    lengths = [_length(leaf) for leaf in _leaves(call)]
    sizes = {length for length in lengths if length}
    if not sizes:
        got = "empty ones" if 0 in lengths else _types(call)
        raise ValueError(f"expected tensor arguments with one row per datum, got {got}")
    ordered = sorted(sizes, key=lambda size: (-lengths.count(size), -size))
    return [Rows.of(call, size) for size in ordered]


def chosen(call: Call, names: tuple[int | str, ...]) -> Rows:
    """The rows of a call by the positions and names of its arguments.

    Raises ``ValueError`` where they are no tensors of one length.
    """
    args, kwargs = call
    values = [args[name] if isinstance(name, int) else kwargs[name] for name in names]
    lengths = {_length(value) for value in values}
    if len(lengths) != 1 or None in lengths:
        raise ValueError(f"expected rows {names} to be tensors of one length, got {lengths}")
    ids = {id(value) for value in values}
    return Rows(tuple(id(leaf) in ids for leaf in _leaves(call)), len(values[0]))


def signature(call: Call) -> Any:
    """What tells calls of one kind from those of another: structure, types, and other values."""
    if plain(call):
        return tuple(_kind(leaf) for leaf in call[0])
    leaves, spec = pytree.tree_flatten(call)
    return str(spec), tuple(_kind(leaf) for leaf in leaves)


def shapes(call: Call) -> tuple[Any, ...]:
    """The shapes of the tensors of a call."""
    return tuple(leaf.shape for leaf in _leaves(call) if isinstance(leaf, Tensor))


def chunks(size: int, width: int) -> Iterator[slice]:
    """Slices of at most ``width`` that cover ``range(size)``."""
    for start in range(0, size, width):
        yield slice(start, min(start + width, size))


def _types(call: Call) -> str:
    """What a call without tensors holds."""
    names = sorted({type(leaf).__name__ for leaf in _leaves(call)})
    advice = ": torch.from_numpy makes a tensor of an array" if "ndarray" in names else ""
    return (" and ".join(names) or "none") + advice


def plain(call: Call) -> bool:
    """Whether all arguments are tensors by position, the usual call, which costs nothing here."""
    args, kwargs = call
    return not kwargs and all(isinstance(leaf, Tensor) for leaf in args)


def tensor_kinds(call: Call) -> Any:
    """Shapes, types and devices of a plain call; no other call is like another."""
    return [(x.shape, x.dtype, x.device) for x in call[0]] if plain(call) else object()


def _leaves(call: Call) -> list[Any]:
    return list(call[0]) if plain(call) else pytree.tree_leaves(call)


def _length(leaf: Any) -> int | None:
    return len(leaf) if isinstance(leaf, Tensor) and leaf.ndim else None


def _kind(leaf: Any) -> Any:
    if isinstance(leaf, Tensor):
        return leaf.dtype, leaf.ndim, leaf.shape[1:], leaf.ndim > 0 and len(leaf) == 1
    return repr(leaf) if isinstance(leaf, (int, float, str, bool, type(None))) else type(leaf)
