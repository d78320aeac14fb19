"""The tables of bad inputs as a document, and how a sentence is compared."""

import json
import re
from pathlib import Path

from .setting import SETTING

HERE = Path(__file__).parent

CALLS: list[tuple[str, str, str]]
"""(call, exception, sentence). Pyro may append the shapes of a trace, on further lines."""
CALLS = list(map(tuple, json.loads((HERE / "calls.json").read_text())))

COMMANDS: list[tuple[str, str, str, str]]
"""(script, what is wrong, arguments, sentence); RUN is the folder of a finished run."""
COMMANDS = list(map(tuple, json.loads((HERE / "commands.json").read_text())))

DOCUMENT = "docs/bad_inputs.md"

INTRODUCTION = """# Bad inputs

What happens when something is wrong. A call of Python raises the exception of its row. A script
prints the sentence, after `error: `, and ends with exit status 2; no file is changed. Every row is
tested: see the two tables in `tests/bad_inputs`. `...` stands for any text.
`python -m tests.bad_inputs` renews this document.
"""


def matches(sentence: str, expected: str) -> bool:
    """Whether a sentence is the expected one, in which "..." stands for any text."""
    pattern = ".*".join(map(re.escape, expected.split("...")))
    return re.fullmatch(pattern, sentence) is not None


def document() -> str:
    """The tables in Markdown."""
    calls = _rows([(f"`{call}`", f"{kind}: {text}") for call, kind, text in CALLS])
    names = SETTING.strip()
    parts = [INTRODUCTION, f"## {len(CALLS)} calls of Python\n", f"{calls}\n"]
    parts += ["The names in these calls:\n", f"```\n{names}\n```\n"]
    parts += [f"## {len(COMMANDS)} commands\n", "RUN is the folder of a finished run.\n"]
    for script in dict.fromkeys(row[0] for row in COMMANDS):
        cases = [row for row in COMMANDS if row[0] == script]
        rows = _rows([(f"`{script}.py {args}`", text) for _, _, args, text in cases])
        parts += [f"### scripts/{script}.py\n", f"{rows}\n"]
    return "\n".join(parts)


def _rows(rows: list[tuple[str, str]]) -> str:
    """A table of two columns; a bar inside a cell would end it."""
    lines = [("you write", "you read"), ("---", "---"), *rows]
    return "\n".join(
        f"| {left.replace('|', '&#124;')} | {_literal(right)} |" for left, right in lines
    )


def _literal(text: str) -> str:
    """Text whose signs are no markup."""
    return re.sub(r"([\\`*_\[\]<>|])", r"\\\1", text)
