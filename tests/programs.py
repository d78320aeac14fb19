"""Pairs of programs on which everything that takes ``(model, guide)`` is tested: a new one is one
entry of ``PAIRS``.

All are in float64 with seeded weights. Those in ``PER_DATUM`` have one plate over the data around
every site.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.nn import PyroModule, pyro_method
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor, nn

from pyro_vae import VAE, Bernoulli, DiagonalNormal, StandardNormal, mlp

Program = Callable[..., Any]
PIXELS, LATENT, ROWS = 12, 3, 7


def binary(rows: int = ROWS, seed: int = 0) -> Tensor:
    """Binary pixels: one of two random patterns, with a little noise, so that there is something
    to learn."""
    generator = torch.Generator().manual_seed(seed)
    patterns = torch.rand(2, PIXELS, generator=generator, dtype=torch.float64).round()
    flips = torch.rand(rows, PIXELS, generator=generator, dtype=torch.float64) < 0.05
    return (patterns.repeat(rows, 1)[:rows] - flips.double()).abs()


def decoder() -> Bernoulli:
    return Bernoulli(mlp(LATENT, 16, PIXELS))


def encoder() -> DiagonalNormal:
    return DiagonalNormal(mlp(PIXELS, 16, 2 * LATENT))


def plain_vae(seed: int = 0) -> VAE:
    torch.manual_seed(seed)
    return VAE(StandardNormal(LATENT), decoder(), encoder()).double()


class BottomUp(PyroModule):
    """p(z2) p(z1 | z2) p(x | z1),  q(z1 | x) q(z2 | z1)."""

    def __init__(self) -> None:
        super().__init__()
        self.p_z2, self.p_z1, self.p_x = (
            StandardNormal(2),
            DiagonalNormal(mlp(2, 16, 2 * LATENT)),
            decoder(),
        )
        self.q_z1, self.q_z2 = encoder(), DiagonalNormal(mlp(LATENT, 16, 4))

    @pyro_method
    def model(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z2 = pyro.sample("z2", self.p_z2())
            z1 = pyro.sample("z1", self.p_z1(z2))
            pyro.sample("x", self.p_x(z1), obs=x)

    @pyro_method
    def guide(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z1 = pyro.sample("z1", self.q_z1(x))
            pyro.sample("z2", self.q_z2(z1))


class TopDown(BottomUp):
    """The same model, q(z2 | x) q(z1 | x)."""

    def __init__(self) -> None:
        super().__init__()
        self.q_z2 = DiagonalNormal(mlp(PIXELS, 16, 4))

    @pyro_method
    def guide(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z2", self.q_z2(x))
            pyro.sample("z1", self.q_z1(x))


class NoPlate(PyroModule):
    """One datum, no plate."""

    def __init__(self) -> None:
        super().__init__()
        self.prior, self.decoder, self.encoder = StandardNormal(LATENT), decoder(), encoder()

    @pyro_method
    def model(self, x: Tensor) -> None:
        pyro.sample("x", self.decoder(pyro.sample("z", self.prior())), obs=x)

    @pyro_method
    def guide(self, x: Tensor) -> None:
        pyro.sample("z", self.encoder(x))


class GlobalLatent(PyroModule):
    """A latent shift w of all data beside the local z: p(w) prod_b p(z_b) p(x_b | z_b + w)."""

    def __init__(self) -> None:
        super().__init__()
        self.prior, self.decoder, self.encoder = StandardNormal(LATENT), decoder(), encoder()
        self.loc = nn.Parameter(torch.randn(LATENT))

    @pyro_method
    def model(self, x: Tensor) -> None:
        w = pyro.sample("w", self.prior())
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", self.prior())
            pyro.sample("x", self.decoder(z + w), obs=x)

    @pyro_method
    def guide(self, x: Tensor) -> None:
        pyro.sample("w", dist.Normal(self.loc, 0.3).to_event(1))
        with pyro.plate("data", len(x)):
            pyro.sample("z", self.encoder(x))


class NestedPlates(PyroModule):
    """A plate of data at -2 around a plate of pixels at -1."""

    def __init__(self) -> None:
        super().__init__()
        self.prior, self.p_x, self.encoder = (
            StandardNormal(LATENT),
            mlp(LATENT, 16, PIXELS),
            encoder(),
        )

    @pyro_method
    def model(self, x: Tensor) -> None:
        with pyro.plate("data", len(x), dim=-2):
            z = pyro.sample("z", self.prior())
            with pyro.plate("pixels", PIXELS, dim=-1):
                pyro.sample("x", dist.Bernoulli(logits=self.p_x(z).squeeze(-2)), obs=x)

    @pyro_method
    def guide(self, x: Tensor) -> None:
        with pyro.plate("data", len(x), dim=-2):
            pyro.sample("z", self.encoder(x.unsqueeze(1)))


class TwoHeads(nn.Module):
    """An encoder that returns a tuple, as in Pyro's examples."""

    def __init__(self, size_in: int = PIXELS) -> None:
        super().__init__()
        self.body, self.loc, self.log_scale = (
            mlp(size_in, 16, 16),
            nn.Linear(16, LATENT),
            nn.Linear(16, LATENT),
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = torch.tanh(self.body(x))
        return self.loc(h), self.log_scale(h).exp()


class PyroStyle(nn.Module):
    """A VAE as Pyro's examples write it: ``pyro.module``, tuple-returning encoder, parameters of
    distributions in the program."""

    def __init__(self) -> None:
        super().__init__()
        self.decoder, self.encoder = mlp(LATENT, 16, PIXELS), TwoHeads()

    def model(self, x: Tensor) -> Tensor:
        pyro.module("decoder", self.decoder)
        with pyro.plate("batch", x.shape[0]):
            zeros = x.new_zeros(x.shape[0], LATENT)
            z = pyro.sample("latent", dist.Normal(zeros, torch.ones_like(zeros)).to_event(1))
            probs = torch.sigmoid(self.decoder(z))
            pyro.sample("obs", dist.Bernoulli(probs).to_event(1), obs=x)
            return probs

    def guide(self, x: Tensor) -> None:
        pyro.module("encoder", self.encoder)
        with pyro.plate("batch", x.shape[0]):
            loc, scale = self.encoder(x)
            pyro.sample("latent", dist.Normal(loc, scale).to_event(1))


class SemiSupervised(nn.Module):
    """Kingma et al.'s M2 in the style of Pyro's examples: ``ys`` is given for labelled data, None
    for the others."""

    CLASSES = 4

    def __init__(self) -> None:
        super().__init__()
        self.encoder_y, self.encoder_z = (
            mlp(PIXELS, 16, self.CLASSES),
            TwoHeads(PIXELS + self.CLASSES),
        )
        self.decoder = mlp(LATENT + self.CLASSES, 16, PIXELS)

    def model(self, xs: Tensor, ys: Tensor | None = None) -> None:
        pyro.module("ss_vae", self)
        with pyro.plate("data"):
            zeros = xs.new_zeros(len(xs), LATENT)
            zs = pyro.sample("z", dist.Normal(zeros, 1.0).to_event(1))
            ys = pyro.sample(
                "y",
                dist.OneHotCategorical(xs.new_ones(len(xs), self.CLASSES) / self.CLASSES),
                obs=ys,
            )
            shape = torch.broadcast_shapes(zs.shape[:-1], ys.shape[:-1])
            h = torch.cat([zs.expand(*shape, -1), ys.expand(*shape, -1)], -1)
            pyro.sample("x", dist.Bernoulli(logits=self.decoder(h)).to_event(1), obs=xs)

    def guide(self, xs: Tensor, ys: Tensor | None = None) -> None:
        with pyro.plate("data"):
            if ys is None:
                ys = pyro.sample("y", dist.OneHotCategorical(logits=self.encoder_y(xs)))
            loc, scale = self.encoder_z(torch.cat([xs.expand(*ys.shape[:-1], -1), ys], -1))
            pyro.sample("z", dist.Normal(loc, scale).to_event(1))


def labels(rows: int = ROWS) -> Tensor:
    """One-hot labels in turn."""
    return torch.eye(SemiSupervised.CLASSES, dtype=torch.float64).repeat(rows, 1)[:rows]


@dataclass
class Pair:
    """Two programs, the module that owns their parameters, and a call's arguments."""

    module: nn.Module
    model: Program
    guide: Program
    args: tuple[Any, ...]
    nesting: int = 1
    unused: str | None = None
    """Parameters that this call does not use have names that begin so."""

    def parameters(self) -> list[nn.Parameter]:
        """The parameters that the programs use."""
        return [
            p
            for name, p in self.module.named_parameters()
            if self.unused is None or not name.startswith(self.unused)
        ]

    def named_gradients(self) -> dict[str, Tensor]:
        return {name: p.grad for name, p in self.module.named_parameters() if p.grad is not None}


def pair(kind: type[nn.Module], *args: Any, nesting: int = 1, unused: str | None = None) -> Pair:
    torch.manual_seed(0)
    module = kind().double()
    return Pair(module, module.model, module.guide, args or (binary(),), nesting, unused)


def fixed_draws(guide: Program, values: dict[str, Tensor]) -> Program:
    """The same guide with the draws of some sites given; their density is scored there."""

    class fix(poutine.messenger.Messenger):
        def _pyro_sample(self, msg: Any) -> None:
            if msg["name"] in values:
                msg["value"], msg["done"] = values[msg["name"]], True

    return lambda *args: fix()(guide)(*args)


def recorded(program: Program) -> tuple[Program, list[poutine.Trace]]:
    """The same program, and the traces of its runs as they come."""
    traces = []

    def run(*args: Any) -> None:
        traces.append(prune_subsample_sites(poutine.trace(program).get_trace(*args)))

    return run, traces


def vae() -> Pair:
    module = plain_vae()
    return Pair(module, module.model, module.guide, (binary(),))


def masked() -> Pair:
    """A VAE in which some data do not count."""
    bare, mask = vae(), torch.arange(ROWS) % 3 > 0
    return Pair(
        bare.module, poutine.mask(bare.model, mask), poutine.mask(bare.guide, mask), bare.args
    )


def scaled() -> Pair:
    """A VAE whose data stand for more data."""
    bare = vae()
    return Pair(
        bare.module, poutine.scale(bare.model, 3.5), poutine.scale(bare.guide, 3.5), bare.args
    )


PER_DATUM: dict[str, Callable[[], Pair]] = {
    "vae": vae,
    "bottom-up": lambda: pair(BottomUp),
    "top-down": lambda: pair(TopDown),
    "nested plates": lambda: pair(NestedPlates, nesting=2),
    "pyro style": lambda: pair(PyroStyle),
    "labelled": lambda: pair(SemiSupervised, binary(), labels(), unused="encoder_y"),
}

PAIRS: dict[str, Callable[[], Pair]] = PER_DATUM | {
    "no plate": lambda: pair(NoPlate, binary()[0]),
    "global latent": lambda: pair(GlobalLatent),
    "masked": masked,
    "scaled": scaled,
}
