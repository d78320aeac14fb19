"""Runs of programs: on the rows of a call, on copies of them, at given values of the latents."""

from pyro import poutine
from pyro.infer.util import is_validation_enabled
from pyro.poutine import Trace
from pyro.poutine.messenger import Messenger
from pyro.poutine.runtime import NonlocalExit

from .checks import check_pair, same_shapes
from .handlers import assign, detach_draws, draw_many
from .rows import Call
from .sites import Program, Site, drawn_subsample, stochastic_sites, subsamples
from .structure import Structure, Values, combinations, values_of

Traces = tuple[Trace, ...]


def trace_of(program: Program, call: Call, *handlers: Messenger) -> Trace:
    """A run of a program, inside handlers."""
    if handlers:
        with handlers[0]:
            return trace_of(program, call, *handlers[1:])
    args, kwargs = call
    tracer = poutine.trace()
    tracer(program)(*args, **kwargs)
    trace: Trace = tracer.trace
    return trace


def reached(program: Program, call: Call, name: str) -> Site:
    """A site of a program as it is before it has a value; nothing that follows is run."""
    args, kwargs = call
    try:
        poutine.escape(program, lambda site: site["name"] == name)(*args, **kwargs)
    except NonlocalExit as stop:
        site: Site = stop.site
        return site
    raise ValueError(f"expected site {name!r} in each run of the program, got a run without it")


def run_pair(
    model: Program, guide: Program, call: Call, number: int, detached: bool
) -> tuple[Traces, Traces]:
    """Run the guide, then the model at its draws, some times; the subsample stays the same."""
    models: list[Trace] = []
    guides: list[Trace] = []
    for _ in range(number):
        handlers: list[Messenger] = [detach_draws()] if detached else []
        if guides:
            handlers.append(assign(subsamples(guides[0])))
        guides.append(trace_of(guide, call, *handlers))
        models.append(_replayed(model, call, guides[-1]))
    return tuple(models), tuple(guides)


def run_guide(guide: Program, call: Call, number: int) -> Traces:
    """Run the guide some times; the subsample stays the same."""
    guides = [trace_of(guide, call)]
    given = subsamples(guides[0])
    return (*guides, *(trace_of(guide, call, assign(given)) for _ in range(number - 1)))


def _replayed(model: Program, call: Call, guide_trace: Trace) -> Trace:
    """The model's run at the guide's draws, checked where Pyro validates."""
    replay = poutine.replay(trace=guide_trace)
    if not is_validation_enabled():
        return trace_of(model, call, replay)
    model_trace = trace_of(model, call, same_shapes(), replay)
    check_pair(model_trace, guide_trace)
    return model_trace


def draw_rows(
    guide: Program, call: Call, found: Structure, num_particles: int, detached: bool = False
) -> tuple[Trace, Values]:
    """One run of the guide that draws K values for each datum."""
    draw = draw_shared if found.shared(num_particles) else draw_copies
    return draw(guide, call, found, num_particles, detached)


def draw_shared(
    guide: Program, call: Call, found: Structure, num_particles: int, detached: bool
) -> tuple[Trace, Values]:
    """One run of a guide of one latent site, whose distribution draws K values."""
    drawing = draw_many(num_particles)
    trace = _complete(trace_of(guide, call, drawing))
    (site,) = stochastic_sites(trace)
    value = drawing.value.detach() if detached else drawing.value
    return trace, {site["name"]: found.latents[site["name"]].from_draws(value)}


def draw_copies(
    guide: Program, call: Call, found: Structure, num_particles: int, detached: bool
) -> tuple[Trace, Values]:
    """One run of the guide on K copies of the rows, for each combination of summed values."""
    copies = found.guide_copies * num_particles
    fixed = combinations(found.guide_values, num_particles, found.rows.size)
    given = {name: found.latents[name].to_rows(value) for name, value in fixed.items()}
    handlers: list[Messenger] = [detach_draws()] if detached else []
    rows = found.rows.copies(call, copies)
    trace = _complete(trace_of(guide, rows, *handlers, assign(given)))
    return trace, values_of(trace, found, copies)


def _complete(trace: Trace) -> Trace:
    """The trace of a run on rows, in which a plate may not subsample them.

    One that does so from some size on is not found by looking at a few rows.
    """
    if drawn := drawn_subsample(trace):
        raise ValueError(drawn)
    return trace


def at_values(
    program: Program,
    call: Call,
    found: Structure,
    values: Values,
    number: int,
    given: Values | None = None,
) -> Traces:
    """Runs at given values (N, B, ...): one on N copies of the rows, or N runs."""
    if number == 1 or found.vectorized:
        return (at_copies(program, call, found, values, number, given),)
    each = ({name: v[n : n + 1] for name, v in values.items()} for n in range(number))
    return tuple(at_copies(program, call, found, one, 1, given) for one in each)


def at_copies(
    program: Program,
    call: Call,
    found: Structure,
    values: Values,
    copies: int,
    given: Values | None = None,
) -> Trace:
    """A run at given values (N, B, ...), on N copies of the rows.

    ``given`` are values of global sites, and the rows that plates have chosen, as they are.
    """
    local = {name: found.latents[name].to_rows(v) for name, v in values.items()}
    return trace_of(program, found.rows.copies(call, copies), assign(local | (given or {})))


def with_classes(values: Values, found: Structure, copies: int) -> Values:
    """Values (N, B, ...) beside all combinations of the model's summed values: (C N, B, ...)."""
    classes = found.model_copies
    if classes == 1:
        return values
    fixed = combinations(found.model_values, copies, found.rows.size)
    repeated = {name: v.repeat(classes, *[1] * (v.ndim - 1)) for name, v in values.items()}
    return repeated | fixed
