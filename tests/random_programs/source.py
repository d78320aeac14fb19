"""A specification as the text of a stand-alone program, which is also what the checks run."""

from textwrap import indent

from .sites import guide_latents, model_latents, observed, truth
from .spec import DISCRETE, Spec
from .subject import GUMBEL

HEADER = """\
import math

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.nn import PyroModule, pyro_method
from torch import nn
"""

STRICT = '''

class Strict(nn.Module):
    """A network for (N, D) and nothing else."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, h):
        return torch.mm(h, self.net.weight.T) + self.net.bias
'''


def program(spec: Spec) -> str:
    """The text that defines ``model``, ``guide``, ``nets``, ``args``, ``kwargs`` and ``truth``.

    ``truth`` is log p(x), one number per datum, or None where it is not known.
    """
    header = (
        HEADER
        + (f"{GUMBEL}\n" if spec.latent == "relaxed" else "")
        + (STRICT if spec.strict else "")
    )
    model, guide = _model(spec), _guide(spec)
    if spec.style in ("method", "nn"):
        base, mark = (
            ("PyroModule", "@pyro_method\n") if spec.style == "method" else ("nn.Module", "")
        )
        init = "def __init__(self):\n    super().__init__()\n    self.nets = nets\n\n"
        body = indent(f"{init}{mark}{model}\n{mark}{guide}", "    ")
        start = "pair = Pair()\nmodel, guide = pair.model, pair.guide\n"
        programs = f"class Pair({base}):\n{body}\n{start}"
    else:
        programs = f"{model}\n{guide}"
    return f"{header}\n# {spec}\n{_setup(spec)}\n\n{programs}\n{_truth(spec)}\n"


def _setup(spec: Spec) -> str:
    """Networks and data."""
    inner = ", 2" if spec.inner else ""
    wide = spec.observed * (2 if spec.inner else 1)
    x = f"torch.randn({spec.batch}{inner}, {spec.observed}, dtype=torch.float64)"
    if spec.likelihood == "bernoulli":
        x = f"({x} > 0).to(torch.{spec.dtype})"
    strict = "Strict(%s)" if spec.strict else "%s"
    latent = spec.dim * (1 if spec.latent in DISCRETE or spec.latent == "relaxed" else 2)
    nets = {
        "encoder": strict % f"nn.Linear({wide}, {latent})",
        "decoder": strict % f"nn.Linear({spec.dim}, {spec.observed})",
        "classes": f"nn.Linear({wide}, 2)",
        "top": f"nn.Linear({spec.dim}, {spec.dim})",
        "inner": f"nn.Linear({spec.observed}, 2)",
        "world": "nn.Linear(1, 2)",
    }
    lines = [
        f"torch.manual_seed({spec.seed})",
        "nets = nn.ModuleDict({",
        *(
            f'    "{name}": {net},'
            for name, net in nets.items()
            if name in {*_used(spec, True), *_used(spec, False)}
        ),
        "}).double()",
        f"x = {x}",
        *(_labels(spec) if spec.labels == "given" else []),
    ]
    named = ["x=x", "ys=ys"] if spec.labels == "given" else ["x=x"]
    values = [name.split("=")[1] for name in named]
    call = (
        f"args, kwargs = (), dict({', '.join(named)})"
        if spec.keyword
        else f"args, kwargs = ({', '.join(values)},), {{}}"
    )
    return "\n".join([*lines, call])


def _labels(spec: Spec) -> list[str]:
    """Values of y."""
    classes = 2 if spec.latent in ("mixed", "bernoulli") else spec.dim
    lines = [f"ys = torch.arange({spec.batch}) % {classes}"]
    if spec.latent == "onehot":
        lines.append(f"ys = nn.functional.one_hot(ys, {spec.dim}).double()")
    return [*lines, "ys = ys.double()"] if spec.latent == "bernoulli" else lines


def _used(spec: Spec, model: bool) -> list[str]:
    """The networks that a program uses."""
    top = ["top"] if spec.latent == "two" else []
    if model:
        return ["decoder", *top]
    encoder = [] if spec.exact else ["encoder"]
    classes = ["classes"] if spec.latent == "mixed" else []
    return [
        *encoder,
        *classes,
        *top,
        *(["inner"] if spec.inner == "latent" else []),
        *(["world"] if spec.outside else []),
    ]


def _nets(spec: Spec, model: bool) -> str:
    """The first lines of a program: its networks."""
    names = _used(spec, model)
    owner = "self.nets" if spec.style in ("method", "nn") else "nets"
    lines = (
        [f'pyro.module("nets.{name}", nets["{name}"])' for name in names]
        if spec.style == "module"
        else []
    )
    return "\n".join([*lines, *(f'{name} = {owner}["{name}"]' for name in names)]) + "\n"


def _function(spec: Spec, name: str, body: str) -> str:
    own = "self, " if spec.style in ("method", "nn") else ""
    return f"def {name}({own}x, ys=None):\n{indent(body, '    ')}\n"


def _within(context: str, body: str, when: bool = True) -> str:
    return f"with {context}:\n{indent(body, '    ')}" if when else body


def _plate(spec: Spec, body: str) -> str:
    """The data plate, with everything in it."""
    size = ", subsample_size=(len(x) + 1) // 2" if spec.subsample else ""
    dim = f", dim={spec.data_dim}" if spec.inner or spec.data_dim == -2 else ""
    lift = ".unsqueeze(1)" if spec.data_dim == -2 else ""
    rows = "[rows]" if spec.subsample else ""
    take = (
        f"batch, labels = x{rows}, None if ys is None else ys{rows}{lift}\n"
        if rows or lift
        else "batch, labels = x, ys\n"
    )
    take += "flat = batch.flatten(1)\n"
    take += f"total = flat.sum(1){lift}\n"
    masked = _within("poutine.mask(mask=total > -0.3)", body, spec.mask == "poutine")
    return _within(
        f'pyro.plate("data", len(x){size}{dim})' + (" as rows" if spec.subsample else ""),
        take + masked,
    )


def _around_latents(spec: Spec, body: str) -> str:
    masked = _within("poutine.mask(mask=total > -0.3)", body, spec.mask == "latent")
    return _within("poutine.scale(scale=0.4)", masked, spec.scale == "latent")


def _outside(spec: Spec, model: bool) -> str:
    """What lies outside the data plate."""
    lines = [] if model else ["world = world(torch.ones(1, dtype=torch.float64))"]
    prior = "dist.Normal(torch.zeros((), dtype=torch.float64), 1.0)"
    fn = prior if model else "dist.Normal(world[0], (0.3 * world[1] - 1).exp())"
    if not spec.outside:
        return ""
    sample = f'theta = pyro.sample("theta", {fn})'
    if spec.outside == "sibling":
        dim = f", dim={spec.data_dim}"
        sample = _within(f'pyro.plate("items", {spec.sibling}{dim})', sample)
        sample += f"\ntheta = theta.sum({spec.data_dim}, keepdim=True)" if model else ""
    return "\n".join([*lines, sample]) + "\n"


def _model(spec: Spec) -> str:
    start = _nets(spec, model=True) + _outside(spec, model=True)
    if spec.deterministic == "outside":
        start += 'pyro.deterministic("size", torch.tensor(float(len(x)), dtype=torch.float64))\n'
    if spec.model_factor == "outside":
        weight = "decoder.net.weight" if spec.strict else "decoder.weight"
        start += f'pyro.factor("preference", 0.4 * {weight}.sum())\n'
    body = _around_latents(spec, model_latents(spec))
    if spec.deterministic == "inside":
        body += '\npyro.deterministic("code", code, event_dim=1)'
    if spec.model_factor == "inside":
        body += '\npyro.factor("preference", 0.2 * total)'
    plate = _plate(spec, f"{body}\n{observed(spec)}")
    return _function(
        spec,
        "model",
        _within("poutine.scale(scale=0.4)", start + plate, spec.scale in ("all", "model")),
    )


def _guide(spec: Spec) -> str:
    start = _nets(spec, model=False) + _outside(spec, model=False)
    if spec.guide_factor == "outside":
        start += 'pyro.factor("bonus", torch.tensor(1.5, dtype=torch.float64), has_rsample=True)\n'
    body = _around_latents(spec, guide_latents(spec))
    if spec.guide_factor == "inside":
        body += '\npyro.factor("bonus", 1.5 + 0.2 * total, has_rsample=True)'
    return _function(
        spec,
        "guide",
        _within("poutine.scale(scale=0.4)", start + _plate(spec, body), spec.scale == "all"),
    )


def _truth(spec: Spec) -> str:
    """log p(x) in closed form, or by a sum over the classes."""
    known = (
        spec.local
        and not spec.inner
        and not spec.mask
        and spec.labels != "given"
        and spec.model_factor != "outside"
    )
    text = truth(spec) if known else "truth = None"
    return text + (
        "\ntruth = truth + 0.2 * x.sum(1)"
        if known and text != "truth = None" and spec.model_factor
        else ""
    )
