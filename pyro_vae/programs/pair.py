"""A pair (model, guide): any two Pyro programs over the same latents, drawn from and scored."""

from functools import partial
from typing import Any

from pyro.poutine import Trace
from torch import Tensor

from .checks import check_summable
from .draw import Draw, Sample
from .inspected import Inspected
from .rows import Call
from .runs import (
    Traces,
    at_copies,
    at_values,
    draw_rows,
    reached,
    run_guide,
    run_pair,
    trace_of,
    with_classes,
)
from .scoring import log_likelihood, log_prior, log_summed, of_draws, runs_of, select, total
from .sites import is_factor, subsamples
from .structure import Structure, Values, stacked, values_of, whole_values


class Pair(Inspected):
    """Two programs and the modules behind them.

    ``rows`` names the arguments (by position or name) that have one row per datum, where the rule
    of :mod:`pyro_vae.programs.rows` is ambiguous.

    >>> pair = Pair(vae.model, vae.guide)
    >>> with pair.isolated():
    ...     draw = pair.draw((torch.ones(3, 64),), {}, num_particles=5)
    >>> draw.log_weight.shape
    torch.Size([5, 3])
    """

    def draw(
        self,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        num_particles: int = 1,
        *,
        detached: bool = False,
    ) -> Draw:
        """Draw z ~ q(z | x), K times for each datum, scored by both programs.

        A guide of one latent site runs once for all draws. With ``detached`` no gradient flows
        through the draws.

        Raises ``ValueError`` where the programs do not belong together, or sites that are to be
        summed out cannot be.
        """
        call = args, kwargs
        found = self.structure(call)
        model, guide = self._programs
        if not self._by_rows(found, num_particles):
            models, guides = run_pair(model, guide, call, num_particles, detached)
            return Draw(found, num_particles, models, guides)
        trace, values = draw_rows(guide, call, found, num_particles, detached)
        copies = num_particles * found.guide_copies
        models = self._model_at(call, found, values, copies, whole_values(trace, found))
        prior = partial(reached, model, call, *values) if found.shared(num_particles) else None
        return Draw(found, num_particles, models, (trace,), values, prior)

    def at(
        self,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        values: Values,
        number: int,
        given: Values | None = None,
    ) -> Draw:
        """Score both programs at given values of the latent sites, (K, B, ...), K = ``number``.

        The density of the guide is that of points which it need not have drawn itself. ``given``
        are the rows that plates have chosen, by name.
        """
        call = args, kwargs
        found = self.structure(call)
        models = self._model_at(call, found, values, number, given)
        guides = self._guide_at(call, found, values, number, given)
        prior = partial(reached, self._programs[0], call, *values) if found.single else None
        return Draw(found, number, models, guides, values, prior)

    def sample(self, call: Call, num_particles: int) -> Sample:
        """Draw z ~ q(z | x), K times for each datum; :meth:`score_model` weighs them.

        Raises ``ValueError`` for programs without a weight for each datum.
        """
        found = self.structure(call)
        guide = self._programs[1]
        if found.unweighable is not None:
            raise ValueError(found.unweighable)
        shared = False
        if self._by_rows(found, num_particles):
            shared = found.shared(num_particles)
            trace, values = draw_rows(guide, call, found, num_particles)
            guides: Traces = (trace,)
        else:
            guides = run_guide(guide, call, num_particles)
            values = stacked(guides, found)
        log_guide = self._log_guide(found, guides, values, found.shape(num_particles), shared)
        summed = log_summed(runs_of(guides, found), found, found.shape(num_particles))
        return Sample(values, log_guide, summed, subsamples(guides[0]))

    def sample_prior(self, call: Call, num_particles: int) -> Values:
        """Draw z ~ p(z), K times for each datum, (K, B, ...) by site."""
        found = self.structure(call)
        model = self._programs[0]
        if found.vectorized:
            trace = trace_of(model, found.rows.copies(call, num_particles))
            return values_of(trace, found, num_particles)
        return stacked(tuple(trace_of(model, call) for _ in range(num_particles)), found)

    def score_model(self, call: Call, values: Values, number: int) -> tuple[Tensor, Tensor]:
        """log p(x | z) and log p(z) at values (N, B, ...), N = ``number``; (N, B) each."""
        found = self.structure(call)
        traces = self._model_at(call, found, values, number)
        runs = runs_of(traces, found)
        shape = (number, found.rows.size)
        return log_likelihood(runs, found, shape).local, log_prior(runs, found, shape).local

    def score_guide(self, call: Call, values: Values, number: int) -> Tensor:
        """log q(z | x) at values (N, B, ...), N = ``number``; (N, B), without factors."""
        found = self.structure(call)
        traces = self._guide_at(call, found, values, number)
        return self._log_guide(found, traces, values, (number, found.rows.size), found.single)

    def guide_trace(self, call: Call) -> Trace:
        """A run of the guide."""
        return trace_of(self._programs[1], call)

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

    def _model_at(
        self,
        call: Call,
        found: Structure,
        values: Values,
        number: int,
        given: Values | None = None,
    ) -> Traces:
        """The model at given values, those of global sites and of subsamples included."""
        values = with_classes(values, found, number)
        model = self._programs[0]
        return at_values(model, call, found, values, number * found.model_copies, given)

    def _guide_at(
        self,
        call: Call,
        found: Structure,
        values: Values,
        number: int,
        given: Values | None = None,
    ) -> Traces:
        """The guide at given values; where its one distribution scores them all, at the first."""
        guide = self._programs[1]
        if found.single:
            first = {name: value[:1] for name, value in values.items()}
            return (at_copies(guide, call, found, first, 1, given),)
        return at_values(guide, call, found, values, number, given)

    @staticmethod
    def _log_guide(
        found: Structure, traces: Traces, values: Values, shape: tuple[int, ...], single: bool
    ) -> Tensor:
        """log q(z | x) without factors."""
        runs = select(runs_of(traces, found), lambda site: not is_factor(site))
        if single:
            (site,) = runs[0].local
            return of_draws(site, values[site["name"]], found)
        return total(runs, found.plate, shape).local
