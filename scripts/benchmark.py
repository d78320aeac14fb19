"""Measure what an SVI step, an epoch and an importance-weighted evaluation cost, against the alternatives.

Everything runs interleaved in one process, block by block, so that what slows the machine slows all rows alike; a row's ratio
is the median over blocks of its time divided by the reference's in the same block. Prints tables and writes a JSON file.
"""

import json
import math
import multiprocessing
import platform
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import pyro
import pyro.distributions as dist
import torch
import torch.nn.functional as F
import tyro
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.utils.data import DataLoader

from pyro_vae import (
    SVI,
    VAE,
    Bernoulli,
    DiagonalNormal,
    StandardNormal,
    Trace_ELBO,
    log_likelihood,
    mlp,
)
from pyro_vae.data.images import Images
from pyro_vae.data.splits import load_data
from pyro_vae.evaluation.importance import Scorer
from pyro_vae.evaluation.report import evaluate
from pyro_vae.experiments.command_line import user_errors
from pyro_vae.nets.conv import conv_decoder, conv_encoder
from pyro_vae.nets.precision import BFloat16
from pyro_vae.training.loop import iter_epochs

Step = Callable[[], object]
Rows = dict[str, Step]


@dataclass(frozen=True)
class Options:
    """What is measured, and how often."""

    what: Annotated[
        tuple[str, ...], tyro.conf.arg(metavar="{step,epoch,evaluation,memory,endurance}")
    ] = ("step", "evaluation", "memory")
    """Which tables; epoch and endurance need MNIST in --data-dir."""
    architecture: str = "mlp"
    """mlp or conv."""
    batch: int = 128
    """Images in a step."""
    hidden: int = 400
    """Hidden units of the mlp."""
    latent: int = 20
    """The dimension of z."""
    num_samples: int = 1000
    """K of the evaluation."""
    images: int = 64
    """Images evaluated in a block."""
    blocks: int = 11
    """Blocks, of which the first is not counted."""
    steps: int = 100
    """Steps of each row in a block."""
    endurance_steps: int = 20_000
    """Steps of the endurance run."""
    data_dir: Path | None = None
    """The folder of torchvision's MNIST."""
    threads: int | None = None
    """Torch's threads; by default as many as cores."""
    output: Path = Path("benchmark.json")
    """Where the numbers go."""


PIXELS = (1, 28, 28)
D = math.prod(PIXELS)


def networks(
    options: Options, dense: Callable[..., nn.Module] = mlp
) -> tuple[nn.Module, nn.Module]:
    """The encoder and decoder networks."""
    if options.architecture == "conv":
        return conv_encoder(PIXELS, 2 * options.latent), conv_decoder(options.latent, PIXELS)
    return dense(D, options.hidden, 2 * options.latent), dense(options.latent, options.hidden, D)


def torchs(first: int, hidden: int, last: int) -> nn.Module:
    """The same mlp of torch's own layers."""
    return nn.Sequential(nn.Linear(first, hidden), nn.ReLU(), nn.Linear(hidden, last))


def vae(options: Options, precision: Callable[[nn.Module], nn.Module] = lambda net: net) -> VAE:
    """The model of row R1, or its convolutional sibling."""
    torch.manual_seed(0)
    encoder, decoder = networks(options)
    return VAE(
        StandardNormal(options.latent),
        Bernoulli(precision(decoder)),
        DiagonalNormal(precision(encoder)),
    )


def hand_written(options: Options, x: Tensor, *, compile: bool = False, **adam: Any) -> Step:
    """A VAE's step as one writes it without a framework: cross-entropy, the closed form of the KL, Adam."""
    torch.manual_seed(0)
    encoder, decoder = networks(options, torchs)
    optim = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=1e-3, **adam)

    def loss(x: Tensor) -> Any:
        loc, log_variance = encoder(x).chunk(2, -1)
        logits = decoder(loc + torch.randn_like(loc) * (0.5 * log_variance).exp())
        kl = -0.5 * (1 + log_variance - loc.square() - log_variance.exp()).sum()
        return F.binary_cross_entropy_with_logits(logits, x, reduction="sum") + kl

    function = torch.compile(loss) if compile else loss

    def step() -> None:
        optim.zero_grad()
        function(x).backward()
        optim.step()

    return step


def ours(
    options: Options,
    x: Tensor,
    *,
    compile: bool = False,
    precision: Callable[[nn.Module], nn.Module] = lambda net: net,
) -> Step:
    """Our step."""
    pair = vae(options, precision)
    svi = SVI(
        pair.model,
        pair.guide,
        torch.optim.Adam(pair.parameters(), lr=1e-3, fused=True),
        Trace_ELBO(),
        compile=compile,
    )
    return lambda: svi.step(x)


class Stock(nn.Module):
    """The model of row R1 as a user of Pyro writes it: Pyro's distributions, ``pyro.module``."""

    def __init__(self, options: Options) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.latent = options.latent
        self.encoder, self.decoder = networks(options, torchs)

    def model(self, x: Tensor) -> None:
        """p(x, z)."""
        pyro.module("decoder", self.decoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample(
                "z",
                dist.Normal(
                    torch.zeros(len(x), self.latent), torch.ones(len(x), self.latent)
                ).to_event(1),
            )
            pyro.sample("x", dist.Bernoulli(logits=self.decoder(z)).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        """q(z | x)."""
        pyro.module("encoder", self.encoder)
        with pyro.plate("data", len(x)):
            loc, log_variance = self.encoder(x).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, (0.5 * log_variance).exp()).to_event(1))


def stock(
    options: Options, x: Tensor, loss: pyro.infer.ELBO, programs: Callable[[Options], Any] = Stock
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


def products(options: Options, x: Tensor) -> Step:
    """The matrix products of a step alone, forward and backward: three a layer, less the first layer's input gradient."""
    sizes = [
        (D, options.hidden),
        (options.hidden, 2 * options.latent),
        (options.latent, options.hidden),
        (options.hidden, D),
    ]
    layers = [(torch.randn(len(x), i), torch.randn(len(x), o), torch.randn(o, i)) for i, o in sizes]

    def step() -> None:
        for index, (h, grad, weight) in enumerate(layers):
            torch.mm(h, weight.t())
            torch.mm(grad.t(), h)
            if index:
                torch.mm(grad, weight)

    return step


def numpyro_svi(options: Options) -> Any:
    """NumPyro's SVI of row R1, or None where it is not installed (extra ``benchmark``)."""
    try:
        import numpyro as npr
        from jax.example_libraries import stax
    except ImportError:
        return None
    from numpyro import distributions as nd

    relu, out = stax.Relu, options.latent
    encode = stax.serial(
        stax.Dense(options.hidden),
        relu,
        stax.FanOut(2),
        stax.parallel(stax.Dense(out), stax.serial(stax.Dense(out), stax.Exp)),
    )
    decode = stax.serial(stax.Dense(options.hidden), relu, stax.Dense(D))

    def model(x: Any) -> None:
        decoder = npr.module("decoder", decode, (len(x), out))
        with npr.plate("data", len(x)):
            z = npr.sample("z", nd.Normal(0, 1).expand([out]).to_event(1))
            npr.sample("x", nd.Bernoulli(logits=decoder(z)).to_event(1), obs=x)

    def guide(x: Any) -> None:
        encoder = npr.module("encoder", encode, (len(x), D))
        loc, scale = encoder(x)
        with npr.plate("data", len(x)):
            npr.sample("z", nd.Normal(loc, scale).to_event(1))

    return npr.infer.SVI(model, guide, npr.optim.Adam(1e-3), npr.infer.Trace_ELBO())


def numpyro(options: Options, x: Tensor) -> Rows:
    """NumPyro's jitted update, and its whole loop in one XLA program."""
    svi = numpyro_svi(options)
    if svi is None:
        return {}
    import jax

    batch = jax.numpy.asarray(x.numpy())
    state = [svi.init(jax.random.PRNGKey(0), batch), svi.init(jax.random.PRNGKey(0), batch)]
    update = jax.jit(svi.update)
    loop = jax.jit(
        lambda s: jax.lax.fori_loop(0, options.steps, lambda i, s: svi.update(s, batch)[0], s)
    )

    def one() -> None:
        state[0], loss = update(state[0], batch)
        jax.block_until_ready(loss)

    def whole() -> None:
        state[1] = jax.block_until_ready(loop(state[1]))

    whole.steps = options.steps  # type: ignore[attr-defined]
    return {"NumPyro, jitted update": one, "NumPyro, whole loop in XLA": whole}


def numpyro_epoch(options: Options, train: Images) -> Rows:
    """NumPyro's epoch in one XLA program, batches drawn and binarised inside; the last, shorter batch is left out."""
    svi = numpyro_svi(options)
    if svi is None:
        return {}
    import jax

    images, size = jax.numpy.asarray(train.values.numpy()), options.batch

    def batch(indices: Any, key: Any) -> Any:
        return (jax.random.uniform(key, (size, D)) < images[indices] / train.levels).astype(
            jax.numpy.float32
        )

    @jax.jit
    def run(state: Any, key: Any) -> Any:
        order = jax.random.permutation(key, len(images))

        def step(i: Any, s: Any) -> Any:
            indices = jax.lax.dynamic_slice(order, (i * size,), (size,))
            return svi.update(s, batch(indices, jax.random.fold_in(key, i)))[0]

        return jax.lax.fori_loop(0, len(images) // size, step, state)

    key = jax.random.PRNGKey(0)
    state = [svi.init(key, batch(jax.numpy.arange(size), key)), key]

    def epoch() -> None:
        state[1], now = jax.random.split(state[1])
        state[0] = jax.block_until_ready(run(state[0], now))

    return {"NumPyro, whole epoch in XLA": epoch}


def step_rows(options: Options) -> Rows:
    """Everything that takes the step."""
    torch.manual_seed(0)
    x = torch.bernoulli(0.3 * torch.rand(options.batch, D))
    floor = {"matrix products alone": products(options, x)} if options.architecture == "mlp" else {}
    return floor | {
        "hand-written, fused Adam": hand_written(options, x, fused=True),
        "hand-written, default Adam": hand_written(options, x),
        "hand-written, torch.compile, fused Adam": hand_written(
            options, x, compile=True, fused=True
        ),
        "Pyro SVI, Trace_ELBO": stock(options, x, pyro.infer.Trace_ELBO()),
        "Pyro SVI, Trace_ELBO, our programs": stock(options, x, pyro.infer.Trace_ELBO(), vae),
        "Pyro SVI, TraceMeanField_ELBO": stock(options, x, pyro.infer.TraceMeanField_ELBO()),
        "Pyro SVI, JitTrace_ELBO": stock(
            options, x, pyro.infer.JitTrace_ELBO(ignore_jit_warnings=True)
        ),
        "pyro_vae, eager": ours(options, x),
        "pyro_vae, compiled": ours(options, x, compile=True),
        "pyro_vae, eager, bf16": ours(options, x, precision=BFloat16),
        "pyro_vae, compiled, bf16": ours(options, x, compile=True, precision=BFloat16),
        **numpyro(options, x),
    }


def epoch_rows(options: Options) -> Rows:
    """A pass over MNIST, dynamically binarised, with its loading."""
    train = load_data("mnist", options.data_dir, pixels="dynamic", validation_size=0).train
    pair = vae(options)
    svi = SVI(
        pair.model,
        pair.guide,
        torch.optim.Adam(pair.parameters(), lr=1e-3),
        Trace_ELBO(),
        compile=True,
    )
    records = iter_epochs(
        svi, train, epochs=options.blocks + 5, batch_size=options.batch, progress=False
    )
    compiled_step = ours(options, train.batch(torch.arange(options.batch)), compile=True)
    steps = math.ceil(len(train) / options.batch)

    def bare_steps() -> None:
        for _ in range(steps):
            compiled_step()

    return {
        f"{steps} compiled steps": bare_steps,
        "pyro_vae, compiled, fit": lambda: next(records),
        "Pyro SVI, Trace_ELBO, torchvision's ToTensor loader": torchvision_epoch(options, train),
        **numpyro_epoch(options, train),
    }


def torchvision_epoch(options: Options, train: Images) -> Step:
    """An epoch as Pyro's example has it: PIL images, ``ToTensor``, a ``DataLoader``, stock SVI."""
    from torchvision import datasets, transforms

    data = datasets.MNIST(options.data_dir, transform=transforms.ToTensor())
    loader = DataLoader(data, batch_size=options.batch, shuffle=True)
    pair, store = Stock(options), pyro.get_param_store()
    svi = pyro.infer.SVI(
        pair.model, pair.guide, pyro.optim.Adam({"lr": 1e-3}), pyro.infer.Trace_ELBO()
    )

    def epoch() -> None:
        with store.scope():
            for images, _ in loader:
                svi.step(torch.bernoulli(images.flatten(1)))

    return epoch


def evaluation_rows(options: Options) -> Rows:
    """Importance-weighted log p(x) of some images, K samples each; with --data-dir, of MNIST's test set."""
    torch.manual_seed(0)
    pair = vae(options)
    x = torch.bernoulli(0.3 * torch.rand(options.images, D))
    if options.data_dir is not None:
        x = (
            load_data("mnist", options.data_dir, pixels="static")
            .test.subset(slice(options.images))
            .all()
        )
    K = options.num_samples
    h = torch.randn(K, options.latent)
    plain = Stock(options)
    weights = [torch.randn(options.hidden, options.latent), torch.randn(D, options.hidden)]

    def bare() -> None:
        for _ in x:
            torch.mm(torch.mm(h, weights[0].t()), weights[1].t())

    @torch.no_grad()
    def by_hand() -> None:
        for row in x:
            loc, log_variance = plain.encoder(row).chunk(2)
            eps = torch.randn(K, options.latent)
            z = loc + eps * (0.5 * log_variance).exp()
            logits = plain.decoder(z)
            log_px = torch.mv(logits, row) - F.softplus(logits).sum(-1)
            log_w = (
                log_px
                - 0.5 * z.square().sum(-1)
                + 0.5 * eps.square().sum(-1)
                + 0.5 * log_variance.sum()
            )
            log_w.logsumexp(0)

    renyi = pyro.infer.RenyiELBO(
        alpha=0, num_particles=K, vectorize_particles=True, max_plate_nesting=1
    )

    @torch.no_grad()
    def by_renyi() -> None:
        with pyro.get_param_store().scope():
            for row in x:
                renyi.loss(plain.model, plain.guide, row[None])

    graph = Scorer(
        pair.model, pair.guide, compile=True
    )  # its compilation, some seconds once, is not counted
    return {
        "decoder's matrix products alone": bare,
        "hand-written PyTorch": by_hand,
        "Pyro RenyiELBO(alpha=0), image by image": by_renyi,
        "pyro_vae, eager": lambda: log_likelihood(pair.model, pair.guide, x, num_samples=K),
        "pyro_vae, compiled": lambda: log_likelihood(
            pair.model, pair.guide, x, num_samples=K, compile=graph
        ),
        "pyro_vae, compiled, evaluate": lambda: evaluate(
            pair.model, pair.guide, x, num_samples=K, compile=graph, kl_draws=0
        ),
    }


def measure(rows: Rows, reference: str, options: Options, steps: int) -> list[dict[str, Any]]:
    """Time all rows, block by block; return medians, and median ratios to the reference."""
    for step in rows.values():
        for _ in range(3):
            step()
    times: dict[str, list[float]] = {name: [] for name in rows}
    for _ in range(options.blocks):
        for name, step in rows.items():
            inner = getattr(step, "steps", 1)
            count = max(steps // inner, 1)
            start = time.perf_counter()
            for _ in range(count):
                step()
            times[name].append((time.perf_counter() - start) / (count * inner))
    return [
        {
            "row": name,
            "ms": 1e3 * statistics.median(values[1:]),
            "ratio": statistics.median(
                a / b for a, b in zip(values[1:], times[reference][1:], strict=True)
            ),
        }
        for name, values in times.items()
    ]


def peak_memory(num_samples: int, options: Options) -> float:
    """The peak resident memory of an evaluation in a process of its own, in MB."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        peak: float = pool.apply(_peak, (num_samples, options))
    return peak


def _peak(num_samples: int, options: Options) -> float:
    pair = vae(options)
    x = torch.bernoulli(0.3 * torch.rand(options.images, D))
    log_likelihood(pair.model, pair.guide, x, num_samples=num_samples)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def endurance(options: Options) -> dict[str, float]:
    """Train on in one process: resident memory and the time of a step, last quarter against first."""
    train = load_data("mnist", options.data_dir, pixels="dynamic", validation_size=0).train
    pair = vae(options)
    svi = SVI(
        pair.model,
        pair.guide,
        torch.optim.Adam(pair.parameters(), lr=1e-3),
        Trace_ELBO(),
        compile=True,
    )
    memory, times = [], []
    for step in range(options.endurance_steps):
        x = train.batch(torch.randint(len(train), (options.batch,)))
        start = time.perf_counter()
        svi.step(x)
        if step >= 100:  # the compilation, and caches that fill
            times.append(time.perf_counter() - start)
            if step % 100 == 0:
                memory.append(_resident())
    quarter, points = len(times) // 4, len(memory) // 4
    return {
        "steps": options.endurance_steps,
        "resident MB, first quarter": statistics.mean(memory[:points]),
        "resident MB, last quarter": statistics.mean(memory[-points:]),
        "memory, last / first": statistics.mean(memory[-points:])
        / statistics.mean(memory[:points]),
        "step ms, first quarter": 1e3 * statistics.median(times[:quarter]),
        "step ms, last quarter": 1e3 * statistics.median(times[-quarter:]),
        "step, last / first": statistics.median(times[-quarter:])
        / statistics.median(times[:quarter]),
    }


def _resident() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def show(console: Console, title: str, rows: list[dict[str, Any]], reference: str) -> None:
    """Print one table."""
    table = Table("row", "ms", f"ratio to {reference}", title=title)
    for row in rows:
        table.add_row(row["row"], f"{row['ms']:.3f}", f"{row['ratio']:.3f}")
    console.print(table)


def main() -> None:
    """Measure, print, write."""
    with user_errors():
        options = tyro.cli(Options, description=__doc__)
        if options.threads:
            torch.set_num_threads(options.threads)
        console = Console()
        result: dict[str, Any] = {
            "options": asdict(options) | {"data_dir": None},
            "machine": machine(),
        }
        tables: dict[str, tuple[Callable[[Options], Rows], str, int]] = {
            "step": (step_rows, "hand-written, fused Adam", options.steps),
            "epoch": (epoch_rows, "", 1),
            "evaluation": (evaluation_rows, "decoder's matrix products alone", 1),
        }
        for name, (build, reference, steps) in tables.items():
            if name in options.what:
                rows = build(options)
                reference = reference or next(iter(rows))
                result[name] = measure(rows, reference, options, steps)
                show(console, name, result[name], reference)
        if "memory" in options.what:
            result["memory"] = {f"peak MB, K = {K}": peak_memory(K, options) for K in (100, 5000)}
            console.print(result["memory"])
        if "endurance" in options.what:
            result["endurance"] = endurance(options)
            console.print(result["endurance"])
        options.output.write_text(json.dumps(result, indent=2, default=str))


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    names = [
        line.split(":")[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return {
        "cpu": names[0],
        "cores": len(names),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


if __name__ == "__main__":
    torch.set_flush_denormal(True)  # before any thread starts
    main()
