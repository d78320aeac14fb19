"""The contract as a table: for the terminal, and as a document."""

from string import ascii_lowercase

from .pairs import PAIRS
from .refusals import REFUSALS
from .uses import USES, cells

DOCUMENT = "docs/contract.md"

Cells = dict[tuple[str, str], str]

INTRODUCTION = """# The contract

Each row is a pair of programs (`tests/contract/pairs.py`), each column a use of it
(`tests/contract/uses.py`). *ok*: the number agrees with a trusted one, which is Pyro's ELBO at the
same seed, plain Pyro in the mean, a sum over the classes, or a closed form. A letter: the use is
refused, with the sentence below. A dash: not tested, since to compile takes long; one pair of each
mechanism is. `python -m tests.contract` runs every cell; with `--write` it renews this document.

"""


def expected_cells() -> Cells:
    """What the tests ask of each cell: "ok", or how the refusal begins."""
    return {cell: REFUSALS.get(cell, "ok") for cell in cells()}


def letters() -> dict[str, str]:
    """A letter for each sentence, in order; after z come aa, ab, and so on."""
    sentences = dict.fromkeys(sentence for cell in cells() if (sentence := REFUSALS.get(cell)))
    names = (prefix + letter for prefix in ("", *ascii_lowercase) for letter in ascii_lowercase)
    return dict(zip(sentences, names, strict=False))


def mark(cell: tuple[str, str], found: Cells) -> str:
    """What the table shows: "ok", a letter, or in capitals what broke the contract."""
    if cell not in found:
        return "-"
    expected = REFUSALS.get(cell, "ok")
    if not found[cell].startswith(expected):
        return "BROKEN"
    return letters().get(expected, "ok")


def document(found: Cells) -> str:
    """The table in Markdown, one row for each pair, and the sentences of the refusals."""
    heads = ["", *USES]
    rows = [[pair, *(mark((pair, use), found) for use in USES)] for pair in PAIRS]
    lines = [heads, ["---"] * len(heads), *rows]
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    sentences = "\n".join(f"- **{mark}**: {text.strip()} ..." for text, mark in letters().items())
    return f"{INTRODUCTION}{table}\n\nRefused:\n\n{sentences}\n"


def terminal(found: Cells) -> str:
    """The table with a column for each pair, and every sentence as it was."""
    numbers = [f"{i + 1:>3}" for i in range(len(PAIRS))]
    lines = [" " * 22 + "".join(numbers)]
    for use in USES:
        marks = [mark((pair, use), found) for pair in PAIRS]
        lines.append(f"{use:<22}" + "".join(f"{m:>3}" for m in marks))
    lines += ["", *(f"{i + 1:>3} {pair}" for i, pair in enumerate(PAIRS)), ""]
    lines += [f"  {letter} refused: {text.strip()} ..." for text, letter in letters().items()]
    return "\n".join(lines)
