"""The call that a failing check makes, for the program that reproduces it."""

from . import subject
from .spec import Spec

K = 3


def call_of(check: str, spec: Spec) -> str:
    """The call that a check makes, as a line of a program."""
    names = {
        "ELBO, K = 3": "Trace_ELBO",
        "analytic ELBO": "TraceMeanField_ELBO",
        "free bits": "FreeBits",
        "score function": "ScoreFunction_ELBO",
    }
    names |= {
        "ELBO": "Trace_ELBO",
        "log weights": "log_weights",
        "one datum": "log_weights",
        "log likelihood": "log_likelihood",
    }
    name = names.get(check, check)
    needed = [name, "Trace_ELBO"] if name == "SVI" else [name]
    lines = "".join(f"from {getattr(subject, one).__module__} import {one}\n" for one in needed)
    start = f"\n{lines}\npyro.set_rng_seed({spec.seed})\n"
    if name in ("log_weights", "log_likelihood", "evaluate"):
        return f"{start}print({name}(model, guide, *args, num_samples=300, **kwargs))"
    if name == "AIS":
        return f"{start}print(AIS(2, 4, 1).log_weights(model, guide, *args, **kwargs))"
    if name == "SVI":
        optimiser = "torch.optim.SGD(nets.parameters(), lr=0.0)"
        step = f"SVI(model, guide, {optimiser}, loss=Trace_ELBO()).step(*args, **kwargs)"
        return f"{start}print({step})"
    some = "" if name in ("TraceMeanField_ELBO", "FreeBits") or check == "ELBO" else f"{K}"
    some = some.replace(f"{K}", f"num_particles={K}") if name == "Trace_ELBO" else some
    lines = f"print({name}({some}).estimate(model, guide, *args, **kwargs).loss)"
    theirs = "TraceEnum_ELBO" if spec.enumerate else "Trace_ELBO"
    reference = f"pyro.infer.{theirs}().differentiable_loss(model, guide, *args, **kwargs)"
    return f"{start}{lines}\npyro.set_rng_seed({spec.seed})\nprint({reference})"
