"""Text as sequences of integers: one number for each character."""

import random
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

END = 0
"""The number of the end of a sequence and of all places after it."""
UNKNOWN = 1
"""The number of every character outside the vocabulary."""
MARKS = "□"
"""The symbol for an unknown character in decoded texts."""


@dataclass(frozen=True)
class Vocabulary:
    """Characters by number: 0 is the end, 1 is unknown; the others are in order of frequency.

    To store a vocabulary, it is enough to store ``characters``.

    >>> vocabulary = Vocabulary.of(["noon", "on"])
    >>> x = vocabulary.encode(["no", "none"], length=5)
    >>> x
    tensor([[2, 3, 0, 0, 0],
            [2, 3, 2, 1, 0]])
    >>> vocabulary.decode(x)
    ['no', 'non□']
    """

    characters: str

    @classmethod
    def of(cls, texts: Iterable[str], min_count: int = 1) -> "Vocabulary":
        """Return the vocabulary of the characters that occur at least ``min_count`` times."""
        counts = Counter(c for text in texts for c in text)
        kept = sorted(c for c, count in counts.items() if count >= min_count)
        return cls("".join(sorted(kept, key=lambda c: -counts[c])))

    def __len__(self) -> int:
        """Return the number of classes, including the end and the unknown character."""
        return 2 + len(self.characters)

    def encode(self, texts: Sequence[str], length: int) -> Tensor:
        """Return the texts as numbers (N, ``length``), with zeros after the end of a text.

        Raises ``ValueError`` where a text is empty or longer than ``length``.
        """
        sizes = [len(text) for text in texts]
        if not sizes or not 1 <= min(sizes) <= max(sizes) <= length:
            got = f"{min(sizes)} to {max(sizes)}" if sizes else "no text"
            raise ValueError(f"expected texts of 1 to {length} characters, got {got}")
        number = {c: i for i, c in enumerate(self.characters, 2)}
        rows = [[number.get(c, UNKNOWN) for c in text] for text in texts]
        return torch.tensor([row + [END] * (length - len(row)) for row in rows])

    def decode(self, x: Tensor) -> list[str]:
        """Return the texts of numbers (N, T), each up to its end."""
        symbols = ["", MARKS, *self.characters]
        rows = (row[: row.index(END)] if END in row else row for row in x.tolist())
        return ["".join(symbols[i] for i in row) for row in rows]


def couplets(root: Path | str = "data") -> list[str]:
    """Read couplets of Tang poems, ten characters each, from the file ``poems/couplets.txt``.

    Raises ``FileNotFoundError`` where the file is absent.
    """
    path = Path(root) / "poems" / "couplets.txt"
    if not path.is_file():
        raise FileNotFoundError(f"expected one couplet a line in {path}, got no such file")
    return path.read_text(encoding="utf-8").split()


def sentences(shortest: int = 20, longest: int = 80) -> list[str]:
    """Return sentences of the documentation that is part of every Python, in random order.

    >>> max(map(len, sentences(longest=50)))
    50
    """
    from pydoc_data.topics import topics

    words = (" ".join(text.split()) for text in topics.values())
    found = {s for text in words for s in re.split(r"(?<=[.!?]) (?=[A-Z])", text)}
    kept = sorted(s for s in found if shortest <= len(s) <= longest)
    random.Random(0).shuffle(kept)
    return kept
