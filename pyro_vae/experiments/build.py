"""From a configuration to what it names: the data, the pair (model, guide), its inference."""

import math

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from ..data.images import Images
from ..data.splits import Splits, load_data
from ..inference.distributed import local_rank
from ..inference.svi import SVI
from ..models.vae import VAE
from ..nets.dense import set_output_bias
from ..nets.scaling import Divide
from .choices import (
    ANNEALING,
    DECODERS,
    ENCODERS,
    GUIDES,
    LIKELIHOODS,
    LR_SCHEDULES,
    OBJECTIVES,
    OPTIMISERS,
    PRECISIONS,
    PRIORS,
    SPHERICAL,
    Likelihood,
    fitting_likelihoods,
    guide_over,
    peak,
    pick,
)
from .config import Config, check_values


def build_vae(config: Config, train: Images) -> VAE:
    """Build the pair for some images, its weights drawn from ``config.seed`` alone, on the CPU.

    Raises ``ValueError`` for unknown names, values that mean nothing, or a likelihood that is no
    density of the images' pixels.

    >>> build_vae(Config(hidden=(16,), latent_dim=2), load_data("digits").train).sample(3).shape
    torch.Size([3, 64])
    """
    check_values(config)
    likelihood = choose_likelihood(config, train)
    encoder = pick(ENCODERS, config.architecture, "architecture")
    decoder = pick(DECODERS, config.architecture, "architecture")
    precision = pick(PRECISIONS, config.precision, "precision")
    prior = pick(PRIORS, config.prior, "prior")
    pick(GUIDES, config.guide, "guide")
    _check_sphere(config)

    def network(outputs: int) -> nn.Module:
        return nn.Sequential(Divide(peak(train)), precision(encoder(config, train.shape, outputs)))

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(config.seed)
        q = guide_over(config.guide, network, config.latent_dim)
        net = decoder(config, train.shape, likelihood.family.outputs(math.prod(train.shape)))
        if config.init_output_bias:
            set_output_bias(net, likelihood.bias(train.mean().cpu()))
        p = prior(config, q, train)
        arguments = likelihood.arguments(config, train)
        return VAE(p, likelihood.family(precision(net), **arguments), q)


def build_svi(config: Config, vae: VAE, num_data: int) -> tuple[SVI, LRScheduler]:
    """Build the inference of a pair on ``num_data`` images, and the schedule of its learning rate.

    Raises ``ValueError`` for unknown names, and for options that do not fit together.
    """
    check_values(config)
    steps = config.annealing_epochs * -(-num_data // config.batch_size)
    beta = pick(ANNEALING, config.annealing, "annealing")(config, steps)
    objective = pick(OBJECTIVES, config.objective, "objective")(config, beta)
    optim = pick(OPTIMISERS, config.optimiser, "optimiser")(config, vae.parameters())
    factor = pick(LR_SCHEDULES, config.lr_schedule, "lr_schedule")
    svi = SVI(
        vae.model, vae.guide, optim, objective, clip_norm=config.clip_norm, compile=config.compile
    )
    return svi, LambdaLR(optim, lambda epoch: factor(config, epoch))


def load_splits(config: Config) -> Splits:
    """Load the three parts of the data set, cut to ``max_images`` each.

    The errors are those of :func:`pyro_vae.data.splits.load_data`; raises ``ValueError`` too where
    no image is left to train or to test on.
    """
    check_values(config)
    splits = load_data(
        config.dataset,
        config.data_dir,
        pixels=config.pixels,
        validation_size=config.validation_size,
        seed=config.data_seed,
        download=config.download,
    )
    if not (len(splits.train) and len(splits.test)):
        raise ValueError(
            "expected images to train and to test on, "
            f"got {len(splits.train)} and {len(splits.test)} in {config.dataset}"
        )
    if config.max_images is None:
        return splits
    return Splits(*(images.subset(slice(config.max_images)) for images in splits))


def choose_likelihood(config: Config, images: Images) -> Likelihood:
    """Return the likelihood of a run.

    Raises ``ValueError`` where it is no density of the images' pixels.
    """
    fitting = fitting_likelihoods(images)
    name = fitting[0] if config.likelihood is None else config.likelihood
    likelihood = pick(LIKELIHOODS, name, "likelihood")
    if name not in fitting:
        own = ", ".join(sorted(likelihood.family.pixels))
        raise ValueError(
            f"expected a likelihood that is a density of {images.pixels} pixels "
            f"({', '.join(fitting)}), got {name}, which is one of {own} pixels: "
            "choose another likelihood or other pixels"
        )
    return likelihood


def choose_device(name: str) -> torch.device:
    """Return the device of a name (cpu, cuda, cuda:1, mps), or for "auto" the fastest one there is.

    Raises ``ValueError`` for a device that this machine does not have.

    >>> choose_device("cpu")
    device(type='cpu')
    """
    present = _devices()
    own = f"cuda:{local_rank()}"  # each process of torchrun has its own
    if name == "auto":
        wanted = own if own in present else present[0]
    else:
        wanted = own if name == "cuda" else name
    if wanted not in present:
        raise ValueError(
            f"expected a device that this machine has (auto, {', '.join(present)}), got {name!r}"
        )
    return torch.device(wanted)


def _devices() -> list[str]:
    """The devices of this machine, the fastest first."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    mps = ["mps"] if torch.backends.mps.is_available() else []
    return [*(f"cuda:{index}" for index in range(count)), *mps, "cpu"]


def _check_sphere(config: Config) -> None:
    if (config.guide in SPHERICAL) != (config.prior == "sphere"):
        raise ValueError(
            f"expected guide {' or '.join(sorted(SPHERICAL))} with prior sphere, "
            f"got guide {config.guide} with prior {config.prior}"
        )
