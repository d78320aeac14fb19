"""A pair (model, guide): any two Pyro programs over the same latents, drawn from and scored."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import torch
from pyro import poutine
from pyro.infer.util import is_validation_enabled
from pyro.poutine import Trace
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn

from . import scoring
from .checks import check_pair, check_summable, dtypes_explained, same_shapes
from .draw import Draw, Sample, Values
from .handlers import assign, detach_draws, draw_many
from .inspection import inspect, same_by_rows
from .isolation import isolated, looking, unchanged
from .modules import called, modules_of, roots, without_registration
from .rows import Call, Rows, candidates, chosen, chunks, shapes, signature
from .sites import Program, is_factor, stochastic_sites, subsamples
from .structure import Structure, combinations


class Pair:
    """Two programs and the modules behind them.

    ``rows`` names the arguments (by position or name) that have one row per datum, where the rule
    of :mod:`pyro_vae.programs.rows` leaves a doubt.

    >>> from pyro_vae import VAE, Bernoulli, DiagonalNormal, StandardNormal, mlp
    >>> vae = VAE(StandardNormal(2), Bernoulli(mlp(2, 16, 64)), DiagonalNormal(mlp(64, 16, 4)))
    >>> pair = Pair(vae.model, vae.guide)
    >>> with pair.isolated():
    ...     draw = pair.draw((torch.ones(3, 64),), {}, num_particles=5)
    >>> draw.log_weight.shape
    torch.Size([5, 3])
    """

    def __init__(
        self, model: Program, guide: Program, *, rows: Sequence[int | str] | None = None
    ) -> None:
        for name, program in (("model", model), ("guide", guide)):
            if not callable(program):
                raise TypeError(f"expected {name} to be a program, got {type(program).__name__}")
        self.model, self.guide = model, guide
        self.rows = None if rows is None else tuple(rows)
        self.modules: list[nn.Module] = modules_of(model, guide)
        self._silent = without_registration(model), without_registration(guide)
        self._depth = 0
        self._structures: dict[Any, Structure] = {}
        self._mask: tuple[bool, ...] | None = None  # which leaves of a call are rows, if known

    @contextmanager
    def isolated(self, *, validate: bool | None = None, strict: bool = False) -> Iterator[None]:
        """Run the programs with their modules' own parameters: Pyro's state stays as it was."""
        with self._entered(), isolated(self.modules, validate=validate, strict=strict):
            yield

    @contextmanager
    def looking(self) -> Iterator[None]:
        """Run the programs to look, not to learn: ``eval`` mode, no gradients, validation."""
        with self._entered(), looking(self.modules):
            yield

    @contextmanager
    def _entered(self) -> Iterator[None]:
        self._depth += 1
        try:
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
        return replace(found, rows=found.rows.resized(call))

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
        ours = reason.startswith("expected ")  # Pyro's own ValueErrors speak otherwise
        if isinstance(refused, TypeError) or (ours and isinstance(refused, ValueError)):
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
            vectorized = same_by_rows(*self._programs, call, found)
        self.modules[:] = roots([*self.modules, *modules])
        return replace(found, vectorized=vectorized)

    @property
    def _programs(self) -> tuple[Program, Program]:
        """Model and guide; inside isolation without the messages that nobody hears."""
        return self._silent if self._depth else (self.model, self.guide)

    def draw(
        self,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        num_particles: int = 1,
        *,
        shared: bool = True,
        detached: bool = False,
    ) -> Draw:
        """Draw z ~ q(z | x), K times for each datum, scored by both programs.

        A guide of one latent site runs once for all draws, unless not ``shared``. With ``detached``
        no gradient flows through the draws, and log q keeps its own at fixed z.

        Raises ``ValueError`` where the programs do not belong together, or sites that are to be
        summed out cannot be.
        """
        call = args, kwargs
        found = self.structure(call)
        if self._by_rows(found, num_particles):
            shared = shared and found.single and num_particles > 1
            guides, values = self._sample_rows(call, found, num_particles, shared, detached)
            copies = num_particles * found.guide_copies
            handlers = [assign(whole_values(guides[0], found))] if found.whole else []
            model = self._programs[0]
            models = (self._at(model, call, found, values, copies, *handlers),)
        else:
            shared = False
            models, guides = self._runs(call, num_particles, detached)
            values = _stacked(guides, found)
        return Draw(found, num_particles, models, guides, values, shared, detached)

    def guide_trace(self, call: Call) -> Trace:
        """A run of the guide."""
        return self._trace(self._programs[1], call)

    def sample_prior(self, call: Call, num_particles: int) -> Values:
        """Draw z ~ p(z), K times for each datum, (K, B, ...) by site."""
        found, model = self.structure(call), self._programs[0]
        if found.vectorized:
            rows = found.rows.copies(call, num_particles)
            return values_of(self._trace(model, rows), found, num_particles)
        return _stacked(tuple(self._trace(model, call) for _ in range(num_particles)), found)

    def at(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], values: Values, number: int
    ) -> Draw:
        """Score both programs at given values of the latent sites, (K, B, ...), K = ``number``.

        The density of the guide is that of points which it need not have drawn itself.
        """
        call = args, kwargs
        found = self.structure(call)
        model, guide = self._programs
        models = self._all_at(model, call, found, values, number)
        if found.single:
            first = {name: value[:1] for name, value in values.items()}
            guides = self._all_at(guide, call, found, first, 1)
        else:
            guides = self._all_at(guide, call, found, values, number)
        return Draw(found, number, models, guides, values, found.single, True)

    def sample(self, call: Call, num_particles: int) -> Sample:
        """Draw z ~ q(z | x), K times for each datum; :meth:`score_model` weighs them.

        Raises ``ValueError`` for programs without a weight for each datum.
        """
        found = self.structure(call)
        if found.refusal is not None:
            raise ValueError(found.refusal)
        shared = found.single and num_particles > 1 and found.vectorized
        if self._by_rows(found, num_particles):
            guides, values = self._sample_rows(call, found, num_particles, shared, False)
        else:
            guide = self._programs[1]
            guides = tuple(self._trace(guide, call) for _ in range(num_particles))
            values = _stacked(guides, found)
        runs = scoring.select([stochastic_sites(t) for t in guides], lambda s: not is_factor(s))
        shape = found.shape(num_particles)
        if shared:
            (site,) = runs[0]
            return Sample(values, scoring.of_draws(site, values[site["name"]], found), None)
        log_guide = scoring.total(runs, found.plate, shape).local
        return Sample(values, log_guide, scoring.log_summed(runs, found, shape))

    def score_model(self, call: Call, values: Values, number: int) -> tuple[Tensor, Tensor]:
        """log p(x | z) and log p(z) at values (N, B, ...), N = ``number``; (N, B) each."""
        found = self.structure(call)
        shape = number, found.rows.size
        traces = self._all_at(self._programs[0], call, found, values, number)
        runs = [stochastic_sites(trace) for trace in traces]
        log_likelihood = scoring.log_likelihood(runs, found, shape)
        return log_likelihood.local, scoring.log_prior(runs, found, shape).local

    def score_guide(self, call: Call, values: Values, number: int) -> Tensor:
        """log q(z | x) at values (N, B, ...), N = ``number``; (N, B), without factors."""
        found = self.structure(call)
        guide = self._programs[1]
        if found.single:
            first = {name: value[:1] for name, value in values.items()}
            (site,) = stochastic_sites(self._at(guide, call, found, first, 1))
            return scoring.of_draws(site, values[site["name"]], found)
        traces = self._all_at(guide, call, found, values, number)
        runs = scoring.select([stochastic_sites(t) for t in traces], lambda s: not is_factor(s))
        return scoring.total(runs, found.plate, (number, found.rows.size)).local

    def _by_rows(self, found: Structure, num_particles: int) -> bool:
        """Whether one run on copies of the rows takes the place of K runs."""
        summed = [*found.guide_values, *found.model_values]
        if not summed:
            return num_particles > 1 and found.vectorized and not found.whole
        check_summable(found.vectorized, summed, self.modules)
        if found.whole and num_particles > 1:
            raise ValueError(
                f"expected num_particles 1 with global sites {list(found.whole)}, where sites "
                f"{summed} are summed out, got {num_particles}"
            )
        return True

    def _runs(
        self, call: Call, number: int, detached: bool
    ) -> tuple[tuple[Trace, ...], tuple[Trace, ...]]:
        """Run the guide, then the model at its draws, some times; the subsample stays the same."""
        model, guide = self._programs
        models: list[Trace] = []
        guides: list[Trace] = []
        for _ in range(number):
            handlers: list[Messenger] = [detach_draws()] if detached else []
            if guides:
                handlers.append(assign(subsamples(guides[0])))
            guides.append(self._trace(guide, call, *handlers))
            models.append(self._replayed(model, call, guides[-1]))
        return tuple(models), tuple(guides)

    def _replayed(self, model: Program, call: Call, guide_trace: Trace) -> Trace:
        """The model's trace at the guide's draws, checked where Pyro validates."""
        replayed = poutine.replay(model, trace=guide_trace)
        if not is_validation_enabled():
            return self._trace(replayed, call)
        model_trace = self._trace(replayed, call, same_shapes())
        check_pair(model_trace, guide_trace)
        return model_trace

    def _sample_rows(
        self, call: Call, found: Structure, num_particles: int, shared: bool, detached: bool
    ) -> tuple[tuple[Trace, ...], Values]:
        """The guide's trace on copies of the rows, and the values of its latent sites."""
        guide = self._programs[1]
        if shared:
            drawing = draw_many(num_particles)
            trace = self._trace(guide, call, drawing)
            (site,) = stochastic_sites(trace)
            value = drawing.value.detach() if detached else drawing.value
            return (trace,), {site["name"]: found.latents[site["name"]].from_draws(value)}
        copies = found.guide_copies * num_particles
        fixed = combinations(found.guide_values, num_particles, found.rows.size)
        given = {name: found.latents[name].to_rows(value) for name, value in fixed.items()}
        handlers: list[Messenger] = [detach_draws()] if detached else []
        rows = found.rows.copies(call, copies)
        trace = self._trace(guide, rows, *handlers, assign(given))
        return (trace,), values_of(trace, found, copies)

    def _all_at(
        self, program: Program, call: Call, found: Structure, values: Values, number: int
    ) -> tuple[Trace, ...]:
        """A program's traces at given values (N, B, ...): one on N copies, or N runs."""
        if number == 1 or found.vectorized:
            return (self._at(program, call, found, values, number),)
        each = ({name: v[n : n + 1] for name, v in values.items()} for n in range(number))
        return tuple(self._at(program, call, found, one, 1) for one in each)

    def _at(
        self,
        program: Program,
        call: Call,
        found: Structure,
        values: Values,
        copies: int,
        *handlers: Messenger,
    ) -> Trace:
        """A program's trace at given values (N, B, ...), on N copies of the rows.

        The model's own summed sites multiply the copies once more.
        """
        classes = found.model_copies if program is self._programs[0] else 1
        if classes > 1:
            fixed = combinations(found.model_values, copies, found.rows.size)
            values = {name: v.repeat(classes, *[1] * (v.ndim - 1)) for name, v in values.items()}
            values |= fixed
        given = {name: found.latents[name].to_rows(v) for name, v in values.items()}
        rows = found.rows.copies(call, copies * classes)
        return self._trace(program, rows, assign(given), *handlers)

    @staticmethod
    def _trace(program: Program, call: Call, *handlers: Messenger) -> Trace:
        args, kwargs = call
        with ExitStack() as stack:
            for handler in handlers:
                stack.enter_context(handler)
            trace: Trace = poutine.trace(program).get_trace(*args, **kwargs)
        return trace


def values_of(trace: Trace, found: Structure, copies: int) -> Values:
    """The values of the guide's sites in the data plate, (N, B, ...)."""
    sites = [site for site in stochastic_sites(trace) if not site["is_observed"]]
    return {
        site["name"]: found.latents[site["name"]].from_rows(site["value"], copies)
        for site in sites
        if site["name"] in found.latents
    }


def whole_values(trace: Trace, found: Structure) -> dict[str, Tensor]:
    """The values of the guide's global sites."""
    sites = [site for site in stochastic_sites(trace) if not site["is_observed"]]
    return {s["name"]: s["value"] for s in sites if s["name"] not in found.latents}


def _stacked(guides: tuple[Trace, ...], found: Structure) -> Values:
    """The values of K runs, (K, B, ...)."""
    each = [values_of(trace, found, 1) for trace in guides]
    if len(each) == 1:
        return each[0]
    return {name: torch.cat([values[name] for values in each]) for name in each[0]}
