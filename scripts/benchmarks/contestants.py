"""The same VAE by hand, in stock Pyro, and in pyro_vae."""

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import torch
import torch.nn.functional as F
from pyro import poutine
from torch import Tensor, nn

from pyro_vae import SVI, VAE, Bernoulli, DiagonalNormal, StandardNormal, Trace_ELBO, mlp
from pyro_vae.nets import conv_decoder, conv_encoder

from .options import PIXELS, D, Options, Step

Wrap = Callable[[nn.Module], nn.Module]


def random_images(number: int, device: str = "cpu") -> Tensor:
    """Random zeros and ones, (number, D)."""
    torch.manual_seed(0)
    return torch.bernoulli(0.3 * torch.rand(number, D)).to(device)


def networks(
    options: Options, dense: Callable[..., nn.Module] = mlp
) -> tuple[nn.Module, nn.Module]:
    """The encoder and decoder networks, on the device."""
    encoder: nn.Module
    decoder: nn.Module
    if options.architecture == "conv":
        encoder = conv_encoder(PIXELS, 2 * options.latent)
        decoder = conv_decoder(options.latent, PIXELS)
    else:
        encoder = dense(D, options.hidden, 2 * options.latent)
        decoder = dense(options.latent, options.hidden, D)
    return encoder.to(options.device), decoder.to(options.device)


def torch_mlp(first: int, hidden: int, last: int) -> nn.Module:
    """The same mlp of torch's own layers."""
    return nn.Sequential(nn.Linear(first, hidden), nn.ReLU(), nn.Linear(hidden, last))


def vae(options: Options, precision: Wrap = lambda net: net) -> VAE:
    """The model of preset r1, or its convolutional sibling."""
    torch.manual_seed(0)
    encoder, decoder = networks(options)
    pair = VAE(
        StandardNormal(options.latent),
        Bernoulli(precision(decoder)),
        DiagonalNormal(precision(encoder)),
    )
    pair.to(options.device)
    return pair


def svi(pair: VAE, *, compile: bool, loss: Any = None) -> SVI:
    """Our SVI with fused Adam."""
    optim = torch.optim.Adam(pair.parameters(), lr=1e-3, fused=True)
    return SVI(pair.model, pair.guide, optim, loss or Trace_ELBO(), compile=compile)


def ours(
    options: Options,
    x: Tensor,
    *,
    compile: bool = False,
    precision: Wrap = lambda net: net,
    loss: Any = None,
) -> Step:
    """Our step."""
    step = svi(vae(options, precision), compile=compile, loss=loss).step
    return lambda: step(x)


def several(options: Options, x: Tensor) -> Step:
    """As many of our compiled steps in a call as a block has."""
    steps = svi(vae(options), compile=True).steps

    def call() -> None:
        steps([(x,)] * options.steps)

    call.steps = options.steps  # type: ignore[attr-defined]
    return call


def hand_written(
    options: Options, x: Tensor, *, compile: bool = False, mode: str | None = None, **adam: Any
) -> Step:
    """A VAE's step without a framework: cross-entropy, the closed form of the KL, Adam."""
    torch.manual_seed(0)
    encoder, decoder = networks(options, torch_mlp)
    optim = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=1e-3, **adam)

    def forward(x: Tensor) -> Any:
        loc, log_variance = encoder(x).chunk(2, -1)
        logits = decoder(loc + torch.randn_like(loc) * (0.5 * log_variance).exp())
        return negative_elbo(logits, x, loc, log_variance)

    function = torch.compile(forward, mode=mode) if compile else forward

    def step() -> None:
        optim.zero_grad()
        function(x).backward()
        optim.step()

    return step


def traces_alone(options: Options, x: Tensor, **adam: Any) -> Step:
    """Pyro runs both programs, and the loss is written by hand: the least of any eager step."""
    torch.manual_seed(0)
    encoder, decoder = networks(options, torch_mlp)
    optim = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=1e-3, **adam)
    zeros = x.new_zeros(len(x), options.latent)
    ones = torch.ones_like(zeros)

    def model(x: Tensor) -> Any:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(zeros, ones).to_event(1))
            logits = decoder(z)
            pyro.sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=x)
        return logits

    def guide(x: Tensor) -> Any:
        with pyro.plate("data", len(x)):
            loc, log_variance = encoder(x).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, (0.5 * log_variance).exp()).to_event(1))
        return loc, log_variance

    def step() -> None:
        optim.zero_grad()
        with pyro.validation_enabled(False):
            guide_trace = poutine.trace(guide).get_trace(x)
            model_trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(x)
        loc, log_variance = guide_trace.nodes["_RETURN"]["value"]
        negative_elbo(model_trace.nodes["_RETURN"]["value"], x, loc, log_variance).backward()
        optim.step()

    return step


def negative_elbo(logits: Tensor, x: Tensor, loc: Tensor, log_variance: Tensor) -> Any:
    """-ELBO: cross-entropy, and the closed form of the KL."""
    kl = -0.5 * (1 + log_variance - loc.square() - log_variance.exp()).sum()
    return F.binary_cross_entropy_with_logits(logits, x, reduction="sum") + kl


def captured(options: Options, x: Tensor) -> Step:
    """The hand-written step, recorded once as a CUDA graph."""
    step = hand_written(options, x, fused=True, capturable=True)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # what is allocated at first is not recorded
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()

    def replay(kept: Step = step) -> None:  # the graph does not keep its tensors
        graph.replay()

    return replay


def hand_written_iwae(options: Options, x: Tensor, num_samples: int, **adam: Any) -> Step:
    """A step of the importance-weighted bound without a framework."""
    torch.manual_seed(0)
    encoder, decoder = networks(options, torch_mlp)
    optim = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=1e-3, **adam)

    def step() -> None:
        loc, log_variance = encoder(x).chunk(2, -1)
        eps = torch.randn(num_samples, *loc.shape, device=x.device)
        z = loc + eps * (0.5 * log_variance).exp()
        logits = decoder(z)
        log_px = -F.binary_cross_entropy_with_logits(logits, x.expand_as(logits), reduction="none")
        log_ratio = 0.5 * (eps.square() - z.square() + log_variance).sum(-1)
        loss: Any = -(log_px.sum(-1) + log_ratio).logsumexp(0).sum()
        optim.zero_grad()
        loss.backward()
        optim.step()

    return step


class Stock(nn.Module):
    """The model of preset r1 as a user of Pyro writes it: Pyro's distributions, ``pyro.module``."""

    def __init__(self, options: Options) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.latent = options.latent
        self.encoder, self.decoder = networks(options, torch_mlp)

    def model(self, x: Tensor) -> None:
        """p(x, z)."""
        pyro.module("decoder", self.decoder)
        with pyro.plate("data", len(x)):
            zeros = x.new_zeros(len(x), self.latent)
            z = pyro.sample("z", dist.Normal(zeros, torch.ones_like(zeros)).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=self.decoder(z)).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        """q(z | x)."""
        pyro.module("encoder", self.encoder)
        with pyro.plate("data", len(x)):
            loc, log_variance = self.encoder(x).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, (0.5 * log_variance).exp()).to_event(1))


def stock(
    options: Options, x: Tensor, loss: Any, programs: Callable[[Options], Any] = Stock
) -> Step:
    """Pyro's own step, in a parameter store of its own."""
    pair, store = programs(options), pyro.get_param_store()
    svi = pyro.infer.SVI(pair.model, pair.guide, pyro.optim.Adam({"lr": 1e-3}), loss)
    state: list[Any] = [None]

    def step() -> None:
        with store.scope(state[0]) as inner:
            svi.step(x)
        state[0] = inner

    return step
