"""A diffusion model as a VAE with a fixed guide (Ho et al. 2020; Kingma et al. 2021).

The first part uses Gaussian data, for which the best denoiser is known: it compares the bound with
log p(x), by number of steps. The second part trains on images: digits of 8 x 8 counts, or binary
MNIST. The bound is estimated from random steps and reported in nats per image and bits per
dimension, with its standard error.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyro_vae import SVI, TraceMeanField_ELBO, fit, load_data, log_weights
from pyro_vae.data import Images, Splits
from pyro_vae.experiments.programs import Folder, ProgramOptions, program
from pyro_vae.families import Levels, NearestLevel, Noising, log_odds
from pyro_vae.models import Diffusion
from pyro_vae.nets import BFloat16, ResidualMLP, Symmetric, UNet, WithNoiseLevel
from pyro_vae.plots import images, lines
from pyro_vae.training import seeded

GAUSSIAN_STEPS = (2, 4, 8, 16, 32, 64, 128)


@dataclass(frozen=True)
class Options(ProgramOptions):
    """The options of a run."""

    epochs: int = 6
    dataset: str = "mnist"
    num_steps: int = 200
    """The number of steps T."""
    highest: float = 3.0
    """The log signal-to-noise ratio of the first step; 3 suits binary pixels, 8 the digits."""
    lowest: float = -9.0
    net: Literal["dense", "conv"] = "conv"
    """A residual network of dense layers, or a U-Net of convolutions."""
    hidden: int = 512
    """The width of the dense layers."""
    depth: int = 1
    """The number of residual blocks; in a U-Net at each place of full width."""
    channels: int = 32
    frequencies: int = 16
    precision: Literal["float32", "bf16"] = "bf16"
    """The precision of the network's products; densities are in float32."""
    bound_steps: tuple[int, ...] = (200, 1000)
    """The numbers of steps for which the bound is estimated."""
    passes: int = 10
    """The number of draws of the bound for each test image."""
    num_pictures: int = 64
    batch_size: int = 128
    lr: float = 1e-3
    compile: bool = False


def main(args: Sequence[str] | None = None) -> None:
    """Check the bound on Gaussian data; train on images; generate samples."""
    with program(Options, args, __doc__) as (options, folder):
        gaps = gaussian_gaps(options.seed)
        data = load_data(options.dataset, options.data_dir)
        with seeded(options.seed):
            diffusion = build(options, data.train)
        train(options, diffusion, data, folder)
        with seeded(options.seed, 1):
            pictures = diffusion.sample(options.num_pictures).float()
            rows = bounds(diffusion, data.test.all(), options)
        last = {name: gap[-1] for name, gap in gaps.items()}
        folder.write(
            {
                **rows[-1],
                "bounds": rows,
                **{f"Gaussian, {name}, gap in bits per dimension": g for name, g in last.items()},
                "gaps": {"steps": GAUSSIAN_STEPS, **gaps},
            }
        )
        peak = data.train.levels if data.train.pixels == "counts" else 1
        folder.draw("samples", images(pictures, data.train.shape, peak=peak, title="x ~ p(x)"))
        figure = lines(
            *(GAUSSIAN_STEPS, gaps),
            title="Gaussian",
            xlabel="steps",
            ylabel="log p(x) - bound, bits per dimension",
            log="xy",
        )
        folder.draw("gaussian", figure)


def train(options: Options, diffusion: Diffusion, data: Splits, folder: Folder) -> None:
    """Train on one random step of the chain for each datum; the learning rate falls to zero."""
    adam = torch.optim.Adam(diffusion.parameters(), lr=options.lr)
    svi = SVI(
        *(diffusion.step_model, diffusion.step_guide, adam),
        loss=TraceMeanField_ELBO(),
        compile=options.compile,
    )
    fit(
        *(svi, data.train, data.validation),
        epochs=options.epochs,
        batch_size=options.batch_size,
        seed=options.seed,
        scheduler=torch.optim.lr_scheduler.CosineAnnealingLR(adam, options.epochs),
        folder=folder.path,
        resume=True,
        progress=options.progress,
    )


def build(options: Options, train: Images) -> Diffusion:
    """Build the model: Bayes' rule for each pixel, and a network for what the others tell."""
    x = train.all()
    dim, levels = x.shape[1], train.levels if train.pixels == "counts" else 1
    noising = Noising(torch.linspace(options.highest, options.lowest, options.num_steps))
    denoiser = Levels(network(options, train.shape, dim * levels), log_odds(x, levels))
    decoder = NearestLevel(levels, options.highest)
    return Diffusion(denoiser, decoder, Symmetric(levels), noising, dim)


def network(options: Options, shape: tuple[int, int, int], outputs: int) -> nn.Module:
    """The network of z_t and the level of its noise."""
    dim, conditions = math.prod(shape), 2 * options.frequencies
    body = (
        UNet(shape, conditions, outputs, options.channels, options.depth)
        if options.net == "conv"
        else ResidualMLP(dim + conditions, options.hidden, outputs, options.depth)
    )
    net = WithNoiseLevel(body, options.frequencies)
    return BFloat16(net) if options.precision == "bf16" else net


def bounds(diffusion: Diffusion, x: Tensor, options: Options) -> list[dict[str, float]]:
    """The mean bound of the rows of x for several numbers of steps of the same denoiser."""
    rows = []
    for steps in options.bound_steps:
        noising = Noising(torch.linspace(options.highest, options.lowest, steps))
        parts = diffusion.denoiser, diffusion.decoder, diffusion.embed, noising, diffusion.dim
        elbo, error = bound(Diffusion(*parts), x, options.passes)
        rows.append(
            {
                "steps": steps,
                "bound, nats": elbo,
                "its standard error": error,
                "bound, bits per dimension": -elbo / (math.log(2) * diffusion.dim),
            }
        )
    return rows


@torch.no_grad()
def bound(diffusion: Diffusion, x: Tensor, passes: int) -> tuple[float, float]:
    """The mean ELBO of the rows of x and its standard error over the random steps, in nats."""
    pair = diffusion.step_model, diffusion.step_guide
    sums = [
        [-TraceMeanField_ELBO().estimate(*pair, rows).loss.item() for rows in x.split(1000)]
        for _ in range(passes)
    ]
    means = torch.tensor(sums, dtype=torch.float64).sum(-1) / len(x)
    return means.mean().item(), means.std().item() / math.sqrt(passes)


class BestDenoiser(nn.Module):
    """p(v | z_t) for v ~ N(loc, scale^2); without ``spread`` the variance is nearly zero."""

    def __init__(self, loc: Tensor, scale: Tensor, spread: bool) -> None:
        super().__init__()
        self.loc = loc
        self.scale = scale
        self.spread = spread

    def forward(self, z: Tensor, log_snr: Tensor) -> dist.Distribution:
        """The normalised product of the prior and the Gaussian likelihood of z."""
        precision = self.scale**-2 + log_snr.exp()
        shift = z * log_snr.sigmoid().sqrt() / (-log_snr).sigmoid()
        mean = (self.loc / self.scale**2 + shift) / precision
        scale = precision**-0.5 if self.spread else torch.full_like(precision, 1e-9)
        return dist.Normal(mean, scale.expand_as(mean)).to_event(1)


class AtLevel(nn.Module):
    """A denoiser at one fixed level of noise, as a decoder."""

    def __init__(self, denoiser: nn.Module, log_snr: Tensor) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.log_snr = log_snr

    def forward(self, z: Tensor) -> dist.Distribution:
        """p(v | z_1)."""
        distribution: dist.Distribution = self.denoiser(z, self.log_snr)
        return distribution


def gaussian_gaps(seed: int, dim: int = 4, rows: int = 500) -> dict[str, list[float]]:
    """Return log p(x) - bound, in bits per dimension, for each number of steps."""
    with seeded(seed):
        loc, scale = torch.randn(dim).double(), torch.rand(dim).double() + 0.5
        x = loc + scale * torch.randn(rows, dim).double()
        log_px = dist.Normal(loc, scale).to_event(1).log_prob(x)
        gaps: dict[str, list[float]] = {"posterior variance": [], "variance of q alone": []}
        for steps in GAUSSIAN_STEPS:
            log_snr = torch.linspace(10, -10, steps).double()
            decoder = AtLevel(BestDenoiser(loc, scale, True), log_snr[:1])
            for name, spread in zip(gaps, (True, False), strict=True):
                denoiser = BestDenoiser(loc, scale, spread)
                chain = Diffusion(denoiser, decoder, nn.Identity(), Noising(log_snr), dim)
                weights = log_weights(chain.model, chain.guide, x, num_samples=1)
                gap = (log_px - weights).mean().item()
                gaps[name].append(abs(gap) / (math.log(2) * dim))
    return gaps


if __name__ == "__main__":
    main()
