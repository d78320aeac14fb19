"""A training run as one value: the configuration, and what is built from it.

:class:`Config` is the single source of the scripts' options, of a run's ``config.json`` and of what a resumed run must agree
on. The tables below give its names their meaning: a new likelihood, guide, prior or objective is one more line.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeVar

import torch
import tyro
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from ..data.images import Images
from ..data.splits import Splits, load_data
from ..families.bernoulli import Bernoulli, ContinuousBernoulli
from ..families.conditional import Conditional
from ..families.counts import Binomial
from ..families.flow import IAF, FlowPrior, NeuralSpline, Planar, RealNVP
from ..families.full_rank import FullRankNormal
from ..families.laplace import DiagonalLaplace
from ..families.logistic import DiscretizedLogistic
from ..families.low_rank import LowRankNormal
from ..families.mixture import MixtureOfNormals, MixturePrior
from ..families.normal import DiagonalNormal, Normal, StandardNormal
from ..families.power_spherical import PowerSpherical
from ..families.spherical import UniformSphere
from ..families.vamp import VampPrior
from ..families.von_mises_fisher import VonMisesFisher
from ..inference.distributed import local_rank
from ..inference.svi import SVI
from ..models.vae import VAE
from ..nets.conv import Shape, conv_decoder, conv_encoder
from ..nets.mlp import mlp, set_output_bias
from ..nets.precision import BFloat16
from ..nets.residual import residual_decoder, residual_encoder
from ..objectives.doubly_reparameterised import STL, DReG
from ..objectives.elbo import Trace_ELBO, TraceMeanField_ELBO
from ..objectives.free_bits import FreeBits
from ..objectives.importance_weighted import IWAE
from ..objectives.info import InfoVAE
from ..objectives.objective import Schedule
from ..objectives.renyi import Renyi
from ..objectives.schedules import cyclical, linear
from ..objectives.wake_sleep import ReweightedWakeSleep

T = TypeVar("T")


Network = Callable[[int], nn.Module]
"""A network that has been told everything but the number of its outputs."""


class Likelihood(NamedTuple):
    """A family for p(x | z), and what it needs beyond its network."""

    family: type[Conditional]
    arguments: Callable[["Config", Images], dict[str, Any]] = lambda config, images: {}
    bias: Callable[[Tensor], Tensor] = lambda mean: mean.clamp(1e-3, 1 - 1e-3).logit()
    """The output bias that gives the data's mean, (D,) in [0, 1]."""


# The first likelihood that is a density of some kind of pixels is the natural one for it.
LIKELIHOODS: dict[str, Likelihood] = {
    "bernoulli": Likelihood(Bernoulli),
    "continuous_bernoulli": Likelihood(ContinuousBernoulli),
    "normal": Likelihood(
        Normal, lambda c, _: {"scale": c.scale, "learned": c.learn_scale}, lambda mean: mean
    ),
    "discretized_logistic": Likelihood(
        DiscretizedLogistic, bias=lambda mean: torch.cat([mean, torch.full_like(mean, -2)])
    ),
    "binomial": Likelihood(Binomial, lambda c, images: {"total_count": images.levels}),
}


ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "elu": nn.ELU,
    "silu": nn.SiLU,
}


ENCODERS: dict[str, Callable[["Config", Shape, int], nn.Module]] = {
    "mlp": lambda c, shape, outputs: mlp(
        math.prod(shape),
        *c.hidden,
        outputs,
        activation=_pick(ACTIVATIONS, c.activation, "activation"),
    ),
    "conv": lambda c, shape, outputs: conv_encoder(shape, outputs),
    "residual": lambda c, shape, outputs: residual_encoder(shape, outputs),
}


DECODERS: dict[str, Callable[["Config", Shape, int], nn.Module]] = {
    "mlp": lambda c, shape, outputs: mlp(
        c.latent_dim,
        *c.hidden[::-1],
        outputs,
        activation=_pick(ACTIVATIONS, c.activation, "activation"),
    ),
    "conv": lambda c, shape, outputs: conv_decoder(c.latent_dim, shape, outputs),
    "residual": lambda c, shape, outputs: residual_decoder(c.latent_dim, shape, outputs),
}


GUIDES: dict[str, Callable[["Config", Network], nn.Module]] = {
    "diagonal": lambda c, net: DiagonalNormal(net(DiagonalNormal.outputs(c.latent_dim))),
    "laplace": lambda c, net: DiagonalLaplace(net(DiagonalLaplace.outputs(c.latent_dim))),
    "low_rank": lambda c, net: LowRankNormal(net(LowRankNormal.outputs(c.latent_dim, 5)), 5),
    "full_rank": lambda c, net: FullRankNormal(net(FullRankNormal.outputs(c.latent_dim))),
    "mixture": lambda c, net: MixtureOfNormals(net(MixtureOfNormals.outputs(c.latent_dim))),
    "planar": lambda c, net: Planar(net(Planar.outputs(c.latent_dim)), c.latent_dim),
    "iaf": lambda c, net: IAF(net(IAF.outputs(c.latent_dim)), c.latent_dim),
    "realnvp": lambda c, net: RealNVP(net(RealNVP.outputs(c.latent_dim)), c.latent_dim),
    "spline": lambda c, net: NeuralSpline(net(NeuralSpline.outputs(c.latent_dim)), c.latent_dim),
    "power_spherical": lambda c, net: PowerSpherical(net(PowerSpherical.outputs(c.latent_dim))),
    "von_mises_fisher": lambda c, net: VonMisesFisher(net(VonMisesFisher.outputs(c.latent_dim))),
}


SPHERICAL = {"power_spherical", "von_mises_fisher"}
"""Guides that are densities on the sphere, and so go with the sphere's prior."""


PRIORS: dict[str, Callable[["Config", nn.Module, Images], nn.Module]] = {
    "standard": lambda c, q, train: StandardNormal(c.latent_dim),
    "mixture": lambda c, q, train: MixturePrior(c.latent_dim),
    "vamp": lambda c, q, train: VampPrior(
        q, train.batch(torch.randperm(len(train))[:100]).float().cpu(), peak(train)
    ),
    "flow": lambda c, q, train: FlowPrior(c.latent_dim),
    "spline_flow": lambda c, q, train: FlowPrior(c.latent_dim, bins=8),
    "sphere": lambda c, q, train: UniformSphere(c.latent_dim),
}


# Those from "iwae" on weigh no KL, so that beta is refused.
OBJECTIVES: dict[str, Callable[["Config", float | Schedule], Any]] = {
    "elbo": lambda c, beta: Trace_ELBO(num_particles=c.num_particles, beta=beta),
    "analytic": lambda c, beta: TraceMeanField_ELBO(num_particles=c.num_particles, beta=beta),
    "iwae": lambda c, beta: IWAE(_plain(c, beta).num_particles),
    "dreg": lambda c, beta: DReG(_plain(c, beta).num_particles),
    "stl": lambda c, beta: STL(_plain(c, beta).num_particles),
    "renyi": lambda c, beta: Renyi(_plain(c, beta).num_particles),
    "wake_sleep": lambda c, beta: ReweightedWakeSleep(_plain(c, beta).num_particles),
    "free_bits": lambda c, beta: FreeBits(_single(_plain(c, beta)).free_bits),
    "infovae": lambda c, beta: InfoVAE(weight=_single(_plain(c, beta)).mmd_weight),
}


ANNEALING: dict[str, Callable[["Config", int], float | Schedule]] = {
    "none": lambda c, steps: c.beta,
    "linear": lambda c, steps: linear(steps, stop=c.beta),
    "cyclical": lambda c, steps: cyclical(steps, stop=c.beta),
}


OPTIMISERS: dict[str, Callable[["Config", Any], torch.optim.Optimizer]] = {
    "adam": lambda c, parameters: torch.optim.Adam(
        parameters, c.lr, c.adam_betas, c.adam_eps, fused=True
    ),
    "adagrad": lambda c, parameters: torch.optim.Adagrad(parameters, c.lr),
    "sgd": lambda c, parameters: torch.optim.SGD(parameters, c.lr),
}


# Factors of the learning rate by epoch, from 0; "burda" are the eight stages of 3^i epochs of the IWAE (Burda et al. 2015).
LR_SCHEDULES: dict[str, Callable[["Config", int], float]] = {
    "constant": lambda c, epoch: 1.0,
    "cosine": lambda c, epoch: 0.5 + 0.5 * math.cos(math.pi * min(epoch / c.epochs, 1.0)),
    "burda": lambda c, epoch: round(
        10 ** (1 - min(int(math.log(2 * epoch + 1, 3) + 1e-9), 7) / 7), 1
    ),
}


PRECISIONS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "float32": lambda net: net,
    "bf16": BFloat16,
}


def _names(table: Mapping[str, object]) -> Any:
    """What ``--help`` shows of an option whose values are the names of a table."""
    return tyro.conf.arg(metavar="{" + ",".join(table) + "}")


@dataclass(frozen=True)
class Config:
    """Everything a training run depends on; the defaults are row R1 of the presets, on the embedded digits."""

    preset: str | None = None
    """Start from a system of the literature (r1 to r5, see pyro_vae.experiments.presets); other options override its settings."""

    dataset: str = "digits"
    """digits, mnist, fashion_mnist, kmnist, emnist, omniglot, cifar10, an .npy or .npz file, or a folder of images."""
    data_dir: Path | None = None
    """The folder of torchvision's data sets."""
    download: bool = False
    """Fetch the data set into --data-dir if it is not there."""
    pixels: str | None = None
    """What is observed of an image: static, dynamic, threshold, grey, counts or 8bit; by default what is usual for the data set."""
    validation_size: int | None = None
    """How many images are for validation; by default what is usual for the data set."""
    max_images: int | None = None
    """Use only the first so many images of each part, for a trial."""
    data_seed: int = 0
    """Seeds the split and the static binarisation; runs of other --seed are then judged on the same images."""

    architecture: Annotated[str, _names(ENCODERS)] = "mlp"
    """The networks of encoder and decoder."""
    hidden: tuple[int, ...] = (400,)
    """Hidden units of the mlp, from the data to the latents."""
    activation: Annotated[str, _names(ACTIVATIONS)] = "relu"
    """The mlp's nonlinearity."""
    likelihood: Annotated[str | None, _names(LIKELIHOODS)] = None
    """The family of p(x | z); by default the natural one of the pixels."""
    scale: float = 0.1
    """The standard deviation of the normal likelihood, or where it starts."""
    learn_scale: bool = False
    """Learn the scale of the normal likelihood."""
    init_output_bias: bool = False
    """Start the decoder's output from the mean image (mlp only)."""
    latent_dim: int = 20
    """The dimension of z."""
    guide: Annotated[str, _names(GUIDES)] = "diagonal"
    """The family of q(z | x)."""
    prior: Annotated[str, _names(PRIORS)] = "standard"
    """The family of p(z)."""

    objective: Annotated[str, _names(OBJECTIVES)] = "elbo"
    """elbo draws every term; analytic has the KL in closed form; iwae, dreg and the others are in pyro_vae.objectives.importance_weighted and objectives."""
    num_particles: int = 1
    """Draws of z for each image and step."""
    beta: float = 1.0
    """The weight of the KL."""
    free_bits: float = 0.1
    """The floor under the KL of each latent dimension and image, in nats (objective free_bits)."""
    mmd_weight: float = 10.0
    """The weight lambda of the divergence of the aggregate (objective infovae)."""
    annealing: Annotated[str, _names(ANNEALING)] = "none"
    """How the weight of the KL grows to beta."""
    annealing_epochs: int = 10
    """The length of the growth (linear) or of one period (cyclical)."""

    optimiser: Annotated[str, _names(OPTIMISERS)] = "adam"
    """The optimiser."""
    lr: float = 1e-3
    """The learning rate."""
    lr_schedule: Annotated[str, _names(LR_SCHEDULES)] = "constant"
    """How the learning rate changes from epoch to epoch."""
    adam_betas: tuple[float, float] = (0.9, 0.999)
    """Adam's decay rates."""
    adam_eps: float = 1e-8
    """Adam's epsilon."""
    clip_norm: float | None = None
    """Scale the gradient down to this norm."""
    epochs: int = 200
    """How many times the training set is seen."""
    batch_size: int = 128
    """Images in a step."""
    patience: int | None = None
    """Stop after so many epochs without a better validation ELBO."""
    seed: int = 0
    """Seeds the weights, the order of the data and all draws."""

    device: str = "auto"
    """cpu, cuda, mps, or auto: the fastest that is there."""
    compile: bool = False
    """Compile the whole step into one graph."""
    precision: Annotated[str, _names(PRECISIONS)] = "float32"
    """What the networks compute in; densities are float32 always."""
    num_samples: int = 1000
    """Importance samples for log p(x) of each test image, at the end."""
    progress: bool = True
    """Show progress bars."""
    output_dir: Path | None = None
    """The run's folder; by default a new one below runs/."""
    resume: Path | None = None
    """Continue the run in this folder; options that are not given are those it was begun with."""


def build_vae(config: Config, train: Images) -> VAE:
    """Build the pair (model, guide) for some images, its weights drawn from ``config.seed`` alone, on the CPU.

    Raises ``ValueError`` for unknown names, sizes below 1, or a likelihood that is no density of the images' pixels.

    >>> build_vae(Config(hidden=(16,), latent_dim=2), load_data("digits").train).sample(3).shape
    torch.Size([3, 64])
    """
    _check_positive(latent_dim=config.latent_dim)
    likelihood = _likelihood(config, train)
    encoder, decoder = (
        _pick(ENCODERS, config.architecture, "architecture"),
        _pick(DECODERS, config.architecture, "architecture"),
    )
    prior, guide = _pick(PRIORS, config.prior, "prior"), _pick(GUIDES, config.guide, "guide")
    if (config.guide in SPHERICAL) != (config.prior == "sphere"):
        raise ValueError(
            f"expected guide {' or '.join(sorted(SPHERICAL))} with prior sphere, got guide {config.guide} with {config.prior}"
        )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(config.seed)
        precision = _pick(PRECISIONS, config.precision, "precision")
        q = guide(
            config,
            lambda outputs: nn.Sequential(
                Divide(peak(train)), precision(encoder(config, train.shape, outputs))
            ),
        )
        net = decoder(config, train.shape, likelihood.family.outputs(math.prod(train.shape)))
        if config.init_output_bias:
            set_output_bias(net, likelihood.bias(train.mean().cpu()))
        return VAE(
            prior(config, q, train),
            likelihood.family(precision(net), **likelihood.arguments(config, train)),
            q,
        )


class Divide(nn.Module):
    """h -> h / divisor: pixels of any kind reach the encoder in [0, 1]."""

    def __init__(self, divisor: float) -> None:
        super().__init__()
        self.divisor = divisor

    def forward(self, h: Tensor) -> Tensor:
        return h / self.divisor


def peak(images: Images) -> float:
    """The largest value a program can observe of a pixel: 1, or the levels of counts and 8-bit pixels.

    >>> peak(load_data("digits").train)
    16.0
    """
    return float(images.levels) if images.pixels in ("counts", "8bit") else 1.0


def natural_likelihood(images: Images) -> str:
    """The name of the likelihood for some images unless another is asked for.

    >>> natural_likelihood(load_data("digits").train)
    'binomial'
    """
    return _fitting(images)[0]


def build_svi(config: Config, vae: VAE, num_data: int) -> tuple[SVI, LRScheduler]:
    """Build the inference of a pair on ``num_data`` images: objective, optimiser and schedule of its learning rate."""
    _check_positive(batch_size=config.batch_size)
    steps = config.annealing_epochs * -(-num_data // config.batch_size)
    beta = _pick(ANNEALING, config.annealing, "annealing")(config, steps)
    objective = _pick(OBJECTIVES, config.objective, "objective")(config, beta)
    optim = _pick(OPTIMISERS, config.optimiser, "optimiser")(config, vae.parameters())
    factor = _pick(LR_SCHEDULES, config.lr_schedule, "lr_schedule")
    svi = SVI(
        vae.model, vae.guide, optim, objective, clip_norm=config.clip_norm, compile=config.compile
    )
    return svi, LambdaLR(optim, lambda epoch: factor(config, epoch))


def load_splits(config: Config) -> Splits:
    """Load the three parts of the data set; the errors are those of :func:`pyro_vae.data.splits.load_data`."""
    splits = load_data(
        config.dataset,
        config.data_dir,
        pixels=config.pixels,
        validation_size=config.validation_size,
        seed=config.data_seed,
        download=config.download,
    )
    if config.max_images is None:
        return splits
    _check_positive(max_images=config.max_images)
    return Splits(*(images.subset(slice(config.max_images)) for images in splits))


def choose_device(name: str) -> torch.device:
    """Return the device of a name (cpu, cuda, cuda:1, mps), or for "auto" the fastest one there is.

    Raises ``ValueError`` for a device that this machine does not have.

    >>> choose_device("cpu")
    device(type='cpu')
    """
    present = (
        [f"cuda:{index}" for index in range(torch.cuda.device_count())]
        if torch.cuda.is_available()
        else []
    )
    present += ["mps"] if torch.backends.mps.is_available() else []
    present += ["cpu"]
    first = f"cuda:{local_rank()}"  # each process of torchrun's its own
    wanted = (
        (first if first in present else present[0])
        if name == "auto"
        else first
        if name == "cuda"
        else name
    )
    if wanted not in present:
        raise ValueError(
            f"expected a device that this machine has (auto, {', '.join(present)}), got {name!r}"
        )
    return torch.device(wanted)


def _likelihood(config: Config, images: Images) -> Likelihood:
    """The likelihood of a run, refused where it is no density of the images' pixels."""
    fitting = _fitting(images)
    name = fitting[0] if config.likelihood is None else config.likelihood
    likelihood = _pick(LIKELIHOODS, name, "likelihood")
    if name not in fitting:
        its_own = ", ".join(sorted(likelihood.family.pixels))
        raise ValueError(
            f"expected a likelihood that is a density of {images.pixels} pixels ({', '.join(fitting)}), "
            f"got {name}, which is one of {its_own} pixels: choose another likelihood or other pixels"
        )
    return likelihood


def _fitting(images: Images) -> list[str]:
    """The names of the likelihoods that are densities of the images' pixels."""
    return [
        name
        for name, likelihood in LIKELIHOODS.items()
        if images.pixels in likelihood.family.pixels
    ]


def _pick(table: Mapping[str, T], name: str, option: str) -> T:
    if name not in table:
        raise ValueError(f"expected {option} to be one of {', '.join(table)}, got {name!r}")
    return table[name]


def _plain(config: Config, beta: float | Schedule) -> Config:
    """The configuration, for objectives that have no KL to weigh."""
    if beta != 1.0:
        raise ValueError(
            f"expected beta 1 and no annealing for objective {config.objective}, which weighs no KL, got beta {config.beta}"
        )
    return config


def _single(config: Config) -> Config:
    """The configuration, for objectives of one draw."""
    if config.num_particles != 1:
        raise ValueError(
            f"expected num_particles 1 for objective {config.objective}, got {config.num_particles}"
        )
    return config


def _check_positive(**values: int) -> None:
    for name, value in values.items():
        if value < 1:
            raise ValueError(f"expected {name} of at least 1, got {value}")
