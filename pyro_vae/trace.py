"""One draw from the guide, scored by both programs: the quantity every objective is made of.

For z ~ q(z | x) the log-densities log p(x | z), log p(z) and log q(z | x), per datum. Their combination
log p(x | z) + log p(z) - log q(z | x) is the log importance weight; its mean over q is the ELBO.
"""

import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import reduce, wraps
from typing import Any, NamedTuple, cast

import pyro
import torch
from pyro import poutine
from pyro.distributions.util import scale_and_mask
from pyro.infer.util import is_validation_enabled
from pyro.nn import pyro_method
from pyro.poutine import Trace
from pyro.poutine.messenger import Messenger
from pyro.poutine.runtime import _PYRO_STACK
from pyro.poutine.util import site_is_subsample
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

Program = Callable[..., Any]
Site = dict[str, Any]

PARTICLES = "num_particles_vectorized"  # the name Pyro's own objectives give this plate


class Terms(NamedTuple):
    """The log-densities of a draw z ~ q(z | x), in nats, each of shape (B,) or (K, B).

    Programs without a plate around all their sites describe one datum: shape () or (K,).
    """

    log_likelihood: Tensor
    """log p(x | z), summed over the observed sites."""
    log_prior: Tensor
    """log p(z), summed over the latent sites of the model."""
    log_guide: Tensor
    """log q(z | x), summed over the sites of the guide."""

    @property
    def log_weight(self) -> Tensor:
        """log w = log p(x | z) + log p(z) - log q(z | x)."""
        return self.log_likelihood + self.log_prior - self.log_guide


def draw(
    model: Program, guide: Program, args: tuple[Any, ...], kwargs: dict[str, Any], num_particles: int | None = None, nesting: int = 1
) -> tuple[Trace, Trace]:
    """Run the guide, then the model at the guide's draw; return (model trace, guide trace).

    With ``num_particles`` = K both run once, inside a plate of K independent draws at dimension ``-1 - nesting``, left of
    the programs' own ``nesting`` plates: the encoder sees each datum once, whatever K.
    """
    programs = model, guide
    if num_particles is not None:
        model, guide = (vectorized(program, num_particles, nesting) for program in programs)
    validate = is_validation_enabled()
    with store_untouched(), dtypes_explained(args, kwargs, *programs):
        # innermost, so that no other handler sees the many messages of pyro.module; when validating, all see everything
        own = nullcontext if validate else own_parameters
        guide_trace = poutine.trace(_within(own, guide)).get_trace(*args, **kwargs)
        with same_shapes() if validate else nullcontext():
            model_trace = poutine.trace(poutine.replay(_within(own, model), trace=guide_trace)).get_trace(*args, **kwargs)
    if validate:
        check_sites(model_trace, guide_trace)
        check_support(model_trace)
    return model_trace, guide_trace


@contextmanager
def store_untouched() -> Iterator[None]:
    """Run programs on a copy of Pyro's store: called outside SVI too, an objective leaves the store as it was."""
    if own_parameters.entered():  # inside a step or a draw, which runs on a copy already
        yield
        return
    store = pyro.get_param_store()
    with store.scope(store.get_state()):
        yield


def _within(context: Callable[[], Any], program: Program) -> Program:
    def run(*args: Any, **kwargs: Any) -> Any:
        with context():
            return program(*args, **kwargs)

    return run


def vectorized(program: Program, num_particles: int, nesting: int) -> Program:
    """The same program inside a plate of ``num_particles`` independent draws, at dimension ``-1 - nesting``."""

    def run(*args: Any, **kwargs: Any) -> Any:
        with pyro.plate(PARTICLES, num_particles, dim=-1 - nesting):
            return program(*args, **kwargs)

    return run


def terms(model_trace: Trace, guide_trace: Trace, *, scaled: bool = True) -> Terms:
    """Score a draw: see :class:`Terms`.

    With ``scaled``, for an ELBO: each site is multiplied by its ``poutine.scale``, and a ``pyro.factor`` of the guide counts
    as part of log q(z | x). Without, for importance weights: neither.
    """
    keep = {particle_dim(guide_trace), data_dim(model_trace, guide_trace)}
    sites = stochastic_sites(model_trace)
    return Terms(
        log_likelihood=log_prob_sum((site for site in sites if site["is_observed"]), keep, scaled),
        log_prior=log_prob_sum((site for site in sites if not site["is_observed"]), keep, scaled),
        log_guide=log_prob_sum((stochastic_sites if scaled else densities)(guide_trace), keep, scaled),
    )


def log_prob_sum(sites: Iterable[Site], keep: set[int | None], scaled: bool = True) -> Tensor:
    """The log-probability of the sites together, summed over all (negative) batch dimensions but those in ``keep``."""
    values = [sum_but(log_prob(site, scaled), keep) for site in sites]
    return reduce(torch.add, values) if values else torch.zeros(())


def log_prob(site: Site, scaled: bool = True) -> Tensor:
    """The log-probability of one site over its batch shape, masked and scaled as its handlers ask."""
    return cast(Tensor, scale_and_mask(site["fn"].log_prob(site["value"]), site["scale"] if scaled else 1.0, site["mask"]))


def score_sum(sites: Iterable[Site], keep: set[int | None]) -> Tensor:
    """log q at the draws of some sites, neither scaled nor masked: the draws were not."""
    values = [sum_but(site["fn"].log_prob(site["value"]), keep) for site in sites]
    return reduce(torch.add, values) if values else torch.zeros(())


def sum_but(value: Tensor, keep: set[int | None]) -> Tensor:
    """Sum over all (negative) dimensions but those in ``keep``."""
    dims = [dim for dim in range(-value.ndim, 0) if dim not in keep]
    return value.sum(dims) if dims else value


def stochastic_sites(trace: Trace) -> list[Site]:
    """The sample sites of a trace, in order, without the subsample sites of plates and without ``pyro.deterministic``."""
    sites = (site for site in trace.nodes.values() if site["type"] == "sample" and not site_is_subsample(site))
    return [site for site in sites if not site["infer"].get("_deterministic")]


def densities(guide_trace: Trace) -> list[Site]:
    """The sites of a guide that are part of log q(z | x): all but ``pyro.factor``."""
    return [site for site in stochastic_sites(guide_trace) if base_name(site["fn"]) != "Unit"]


def particle_dim(trace: Trace) -> int | None:
    """The dimension of the plate of particles, if :func:`draw` opened one."""
    frames = (frame for site in stochastic_sites(trace) for frame in site["cond_indep_stack"])
    return next((frame.dim for frame in frames if frame.name == PARTICLES), None)


def data_dim(*traces: Trace) -> int | None:
    """The (negative) dimension of the outermost plate, by nesting, around every sample site: one row per datum."""
    first, *others = [_common_dims(trace) for trace in traces if stochastic_sites(trace)] or [[]]
    return next((dim for dim in first if all(dim in dims for dims in others)), None)


def _common_dims(trace: Trace) -> list[int]:
    """The dimensions of the plates around every site, the outermost first.

    A plate is known by its name and dimension: two plates side by side may share a dimension.
    """
    stacks = [
        [(f.name, f.dim) for f in site["cond_indep_stack"] if f.vectorized and f.name != PARTICLES] for site in stochastic_sites(trace)
    ]
    return [plate[1] for plate in stacks[0] if all(plate in stack for stack in stacks)]


def nesting(*traces: Trace) -> int:
    """How many dimensions the programs' own plates take up."""
    frames = (f for t in traces for site in stochastic_sites(t) for f in site["cond_indep_stack"] if f.vectorized)
    return max((-f.dim for f in frames if f.name != PARTICLES), default=0)


def check_sites(model_trace: Trace, guide_trace: Trace) -> None:
    """Raise ``ValueError`` unless the guide samples exactly the latent sites of the model, and some site is observed."""
    latent = {site["name"]: site for site in stochastic_sites(model_trace) if not site["is_observed"]}
    guided = {site["name"]: site for site in stochastic_sites(guide_trace) if not site["infer"].get("is_auxiliary")}
    observed = sorted(name for name, site in guided.items() if site["is_observed"])
    if observed:
        raise ValueError(f"expected no observed sites in the guide, got {observed}")
    if latent.keys() != guided.keys():
        missing, unknown = sorted(latent.keys() - guided.keys()), sorted(guided.keys() - latent.keys())
        raise ValueError(
            f"expected the guide to sample the model's latent sites {sorted(latent)}, got {sorted(guided)} "
            f"(missing {missing}, unknown {unknown})"
        )
    if not any(site["is_observed"] for site in stochastic_sites(model_trace)):
        raise ValueError(f"expected an observed site in the model, got only latent sites {sorted(latent)}")


class dtypes_explained(AbstractContextManager[None]):
    """Raise ``TypeError`` with a remedy where programs fail because data are of another dtype than their weights."""

    def __init__(self, args: Any, kwargs: Any, *programs: Program) -> None:
        self.data, self.programs = (*args, *kwargs.values()), programs

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        if not isinstance(error, RuntimeError) or not re.search(r"dtype|scalar type|type \(", str(error)):
            return
        weights = (p.dtype for module in reachable_modules(*self.programs) for p in module.parameters() if p.is_floating_point())
        expected = next(weights, torch.get_default_dtype())
        got = next((x.dtype for x in self.data if isinstance(x, Tensor) and x.dtype != expected), None)
        if got is not None:
            call = {torch.float32: "float()", torch.float64: "double()"}.get(expected, f"to({expected})")
            raise TypeError(f"expected data of dtype {expected}, as the weights are, got {got}: convert with x.{call}") from error


class same_shapes(Messenger):
    """Raise ``ValueError`` where a value from the guide has another shape than the model's distribution for it."""

    def _pyro_post_sample(self, msg: Any) -> None:
        if msg["is_observed"] or site_is_subsample(msg):
            return
        expected, got = tuple(msg["fn"].batch_shape + msg["fn"].event_shape), tuple(msg["value"].shape)
        if expected != got:
            raise ValueError(f"expected the guide to draw site {msg['name']!r} in the model's shape {expected}, got {got}")


def check_support(model_trace: Trace) -> None:
    """Raise ``ValueError`` where an observed value lies outside the support of its distribution."""
    for site in stochastic_sites(model_trace):
        if site["is_observed"] and not bool(site["fn"].support.check(site["value"]).all()):
            value, support = site["value"], site["fn"].support
            raise ValueError(
                f"expected values of site {site['name']!r} in the support {support} of its {base_name(site['fn'])}, "
                f"got values in [{float(value.min()):g}, {float(value.max()):g}]: choose a likelihood for this kind of data"
            )


def check_density(guide_trace: Trace) -> None:
    """Raise ``ValueError`` where the guide draws a point, which has no density, for anything that reports log p(x).

    A ``Delta`` with a ``log_density`` states the density of a draw; with an auxiliary site it is a function of that draw.
    """
    sites = stochastic_sites(guide_trace)
    if any(site["infer"].get("is_auxiliary") and not site["is_observed"] for site in sites):
        return
    for site in sites:
        if base_name(site["fn"]) == "Delta" and bool((base_dist(site["fn"]).log_density == 0).all()):
            raise ValueError(
                f"expected a guide with a density, got a Delta at site {site['name']!r}: a point has no importance weight, "
                "only the loss of an autoencoder (use Trace_ELBO)"
            )


def check_latents(guide_trace: Trace) -> None:
    """Raise ``ValueError`` where the guide draws nothing: without draws there are no weights."""
    if not densities(guide_trace):
        raise ValueError("expected latent sites in the guide, got none: importance weights need draws, use Trace_ELBO")


class no_subsample(Messenger):
    """Raise ``ValueError`` where a plate draws a subsample by itself: what is reported for each of ``num_data`` would be of some.

    A plate of ``num_data`` rows that stand for more (``subsample_size=len(x)``) is none.
    """

    def __init__(self, num_data: int) -> None:
        super().__init__()
        self.num_data = num_data

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        super().__exit__(kind, error, traceback)
        if isinstance(error, ValueError) and str(error).startswith("expected plates without a subsample"):
            raise ValueError(str(error).splitlines()[0]) from None  # Pyro has appended the shapes of the trace

    def _pyro_sample(self, msg: Any) -> None:
        if not site_is_subsample(msg) or msg["value"] is not None:
            return
        size, drawn = msg["fn"].size, msg["fn"].subsample_size
        if drawn is not None and drawn not in (size, self.num_data):
            raise ValueError(
                f"expected plates without a subsample, one row per datum, got {drawn} of {size} in plate {msg['name']!r}: "
                "pass the data to evaluate as arguments, and size the plate by them"
            )


def base_name(fn: Any) -> str:
    """The name of a distribution's family, below ``.to_event`` and ``.expand``."""
    return type(base_dist(fn)).__name__


def base_dist(fn: Any) -> Any:
    """A distribution below ``.to_event``, ``.expand`` and ``.mask``."""
    while hasattr(fn, "base_dist"):
        fn = fn.base_dist
    return fn


class own_parameters(Messenger):
    """Modules use the parameters they own: ``pyro.module`` and ``pyro.param`` hand back what they were given.

    With ``strict``, a ``pyro.param`` that no module owns raises ``ValueError``: nobody would train it.
    """

    def __init__(self, strict: bool = False) -> None:
        super().__init__()
        self.strict = strict

    def _pyro_param(self, msg: Any) -> None:
        if len(msg["args"]) < 2:
            return
        value = msg["args"][1]
        if self.strict and not isinstance(value, nn.Parameter):
            raise ValueError(f"expected every pyro.param to be an nn.Parameter of a module, got {msg['name']!r}: SVI would not train it")
        stored = msg["name"] in pyro.get_param_store()  # a bare pyro.param that Pyro's own SVI has trained
        if isinstance(value, nn.Parameter) or (isinstance(value, Tensor) and not stored):
            msg.update(value=value, done=True, stop=True)

    @staticmethod
    def entered() -> bool:
        """Whether programs run inside now, without ``strict``."""
        return any(isinstance(handler, own_parameters) and not handler.strict for handler in _PYRO_STACK)


def program(method: Program) -> Program:
    """``pyro_method`` for a method that reads nothing of its ``PyroModule`` but submodules.

    Inside :class:`own_parameters`, where nobody listens, it does without the messages that register each of their
    parameters: a tenth of what the handlers cost.
    """
    registering: Program = pyro_method(method)

    @wraps(method)
    def run(*args: Any, **kwargs: Any) -> Any:
        return (method if own_parameters.entered() else registering)(*args, **kwargs)

    return run


@contextmanager
def isolated(*programs: Program, validate: bool, strict: bool = False, keep_store: bool = False) -> Iterator[None]:
    """Run programs with Pyro's store and validation flags as they were before, afterwards.

    Inside, the store is empty, or with ``keep_store`` a copy (for programs that Pyro's own ``SVI`` has trained).
    """
    store = pyro.get_param_store()
    state = store.get_state() if keep_store else None
    with store.scope(state), own_parameters(strict), pyro.validation_enabled(validate), frozen_allowed(*programs):
        yield


@contextmanager
def frozen_allowed(*programs: Program) -> Iterator[None]:
    """Silence ``pyro.module``'s warning about frozen parameters: to freeze is no mistake where modules own their parameters."""
    frozen = any(not p.requires_grad for module in modules_of(*programs) for p in module.parameters())
    with warnings.catch_warnings() if frozen else nullcontext():
        if frozen:
            warnings.filterwarnings("ignore", message=".* was not registered in the param store because requires_grad=False")
        yield


def modules_of(*programs: Program) -> list[nn.Module]:
    """The modules behind programs that are modules, or methods of modules."""
    owners = [getattr(program, "__self__", program) for program in programs]
    return list(dict.fromkeys(owner for owner in owners if isinstance(owner, nn.Module)))


@contextmanager
def evaluation(*programs: Program) -> Iterator[None]:
    """Run programs to look, not to learn: no gradients, modules in ``eval`` mode, global state as it was, afterwards."""
    modes: dict[nn.Module, bool] = {}

    def look(module: nn.Module, args: Any = None) -> None:
        modes.setdefault(module, module.training)
        module.training = False

    for owner in modules_of(*programs):
        owner.apply(look)
    try:  # the hook finds the modules of programs that are plain functions
        with register_module_forward_pre_hook(look), torch.no_grad(), isolated(*programs, validate=True, keep_store=True):
            yield
    finally:
        for module, training in modes.items():
            module.training = training


def reachable_modules(*programs: Any) -> list[nn.Module]:
    """The modules that programs are, belong to, close over or name, whether a call uses them or not."""
    found, seen, open_ = [], set(), list(programs)
    while open_:
        value = open_.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, nn.Module):
            found.append(value)
        elif isinstance(value, list | tuple | dict):
            open_ += value.values() if isinstance(value, dict) else value
        elif callable(value):
            cells = [cell.cell_contents for cell in getattr(value, "__closure__", None) or () if _is_filled(cell)]
            names, namespace = getattr(getattr(value, "__code__", None), "co_names", ()), getattr(value, "__globals__", {})
            found += [namespace[name] for name in names if isinstance(namespace.get(name), nn.Module)]
            open_ += [*cells, getattr(value, "__self__", None), getattr(value, "func", None), getattr(value, "args", None)]
    return found


def _is_filled(cell: Any) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:  # a name that is not bound yet
        return False
