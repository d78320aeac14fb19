"""Two programs whose structure is found by running them: modules, isolation, rows."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any

from torch import nn

from .checks import dtypes_explained
from .inspection import inspect
from .isolation import isolated, looking, unchanged
from .modules import called, modules_of, roots, without_registration
from .rows import Call, Rows, candidates, chosen, chunks, shapes, signature
from .sites import Program
from .structure import Structure

WRONG_ROWS = ("Shape mismatch", "subsample_size does not match")
"""How Pyro's errors begin where a program does not take some rows of its arguments."""


class Inspected:
    """Two programs, the modules behind them, and what runs of them have shown."""

    def __init__(
        self, model: Program, guide: Program, *, rows: Sequence[int | str] | None = None
    ) -> None:
        for name, program in (("model", model), ("guide", guide)):
            if not callable(program):
                raise TypeError(f"expected {name} to be a program, got {type(program).__name__}")
        self.model = model
        self.guide = guide
        self.rows = None if rows is None else tuple(rows)
        self.modules: list[nn.Module] = modules_of(model, guide)
        self._silent = without_registration(model), without_registration(guide)
        self._depth = 0
        self._structures: dict[Any, Structure] = {}
        self._mask: tuple[bool, ...] | None = None  # which leaves of a call are rows, if known

    def isolated(
        self, *, validate: bool | None = None, strict: bool = False
    ) -> AbstractContextManager[None]:
        """Run the programs with their modules' own parameters: Pyro's state stays as it was."""
        return self._inside(isolated(self.modules, validate=validate, strict=strict))

    def looking(self) -> AbstractContextManager[None]:
        """Run the programs to look, not to learn: ``eval`` mode, no gradients, validation."""
        return self._inside(looking(self.modules))

    @contextmanager
    def _inside(self, isolation: AbstractContextManager[None]) -> Iterator[None]:
        self._depth += 1
        try:
            with isolation:
                yield
        finally:
            self._depth -= 1

    def structure(self, call: Call) -> Structure:
        """The structure of the pair on calls of this kind: found once, by running both programs.

        Raises ``ValueError`` where the programs do not belong together.
        """
        key = signature(call), self._mask, tuple(module.training for module in self.modules)
        found = self._structures.get(key) or self._structures.get((key, shapes(call)))
        if found is None:
            found = self._inspect(call)
            known = found.rows.any or found.plate is None  # else shapes tell calls apart
            self._structures[key if known else (key, shapes(call))] = found
        rows = found.rows.resized(call)
        return found if rows.size == found.rows.size else replace(found, rows=rows)

    def sliced(self, call: Call) -> Structure:
        """The structure of the pair on any part of a call's data, with all their rows.

        Raises ``ValueError`` where the programs do not take some rows of their arguments.
        """
        options = candidates(call) if self.rows is None else [chosen(call, self.rows)]
        refused: Exception | None = None
        for rows in options:
            self._mask = rows.mask
            part = rows.take(call, slice(0, 2))
            try:
                found = self.structure(part)
            except Exception as error:  # whatever programs raise for wrong rows
                refused = refused or error
                continue
            if found.plate is None or found.plate_size == min(rows.size, 2):
                return replace(found, rows=rows)
            refused = refused or (ValueError(found.refusal) if found.refusal else None)
        self._mask = None
        reason, *_ = str(refused).strip().splitlines() or [""]
        wrong_rows = reason.startswith(WRONG_ROWS)
        if isinstance(refused, (TypeError, ValueError)) and not wrong_rows:
            raise refused
        raise ValueError(
            "expected a plate with one row per datum around every sample site of model and guide, "
            f"got programs that do not take two rows of their arguments ({reason}): name the "
            "arguments that have rows, and let the guide be a function of them"
        ) from refused

    def parts(self, call: Call, width: int) -> list[Call]:
        """The call cut into calls of at most ``width`` data each."""
        with self.looking():
            rows = self.sliced(call).rows
        return [rows.take(call, part) for part in chunks(rows.size, max(width, 1))]

    def _inspect(self, call: Call) -> Structure:
        rows = None
        if self._mask is not None:
            rows = Rows(self._mask, 0).resized(call)
        elif self.rows is not None:
            rows = chosen(call, self.rows)
        explained = dtypes_explained(call, self.modules)
        with explained, unchanged(self.modules), called() as modules:
            found = inspect(*self._programs, call, rows)
        self.modules[:] = roots([*self.modules, *modules])
        return found

    @property
    def _programs(self) -> tuple[Program, Program]:
        """Model and guide; inside isolation without the registration of parameters."""
        return self._silent if self._depth else (self.model, self.guide)
