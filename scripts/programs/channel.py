"""Channel estimation, y = A h + n with sparse taps: SVI and EM against the exact posterior.

The channel is a convolution with known pilots of +-1. The script computes the normalised squared
error of E[h | y] at each signal-to-noise ratio, for two guides trained by SVI, the mean field by
coordinate ascent, linear estimators, and the exact posterior (a sum over all supports). At
``learn_snr`` EM and SVI also estimate the rate of active taps, their scale and the noise.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from pyro_vae import SVI, DiagonalNormal, FullRankNormal, Trace_ELBO, fit, mlp
from pyro_vae.experiments.programs import ProgramOptions, program
from pyro_vae.families import OneHotCategorical
from pyro_vae.inference import ChannelPrior, all_supports, em_step, exact_posterior, mean_field
from pyro_vae.models import SparseChannel
from pyro_vae.nets import FactorisedTaps, SupportLogits
from pyro_vae.plots import lines
from pyro_vae.training import seeded

GUIDES = ("SVI, mean field", "SVI, joint")


@dataclass(frozen=True)
class Options(ProgramOptions):
    """The options of a run."""

    epochs: int = 60
    taps: int = 6
    pilots: int = 8
    rate: float = 0.3
    snr: tuple[float, ...] = (0.0, 5.0, 10.0, 15.0, 20.0)
    """The signal-to-noise ratios of one active tap, in decibels."""
    learn_snr: float = 10.0
    num_train: int = 2000
    num_test: int = 1000
    num_iterations: int = 100
    """The number of iterations of EM."""
    hidden: int = 64
    batch_size: int = 100
    lr: float = 3e-3


def main(args: Sequence[str] | None = None) -> None:
    """Estimate channels at every signal-to-noise ratio, then learn the hyper-parameters."""
    with program(Options, args, __doc__) as (options, folder):
        A = pilots(options)
        errors = {snr: compare(options, A, snr, folder.path / f"snr{snr:g}") for snr in options.snr}
        learned = learn(options, A, folder.path / "learned")
        names = list(next(iter(errors.values())))
        curves = {name: [errors[snr][name] for snr in options.snr] for name in names}
        shown = {f"{name}, {snr:g} dB": errors[snr][name] for snr in options.snr for name in names}
        flat = {f"{way}, {key}": v for way, values in learned.items() for key, v in values.items()}
        folder.write({**shown, **flat})
        title = f"{options.taps} taps, {options.pilots} pilots"
        figure = lines(
            *(options.snr, curves),
            title=title,
            xlabel="signal to noise, dB",
            ylabel="normalised squared error",
            log="y",
        )
        folder.draw("errors", figure)


def pilots(options: Options) -> Tensor:
    """The convolution with a random sequence of +-1, (M, L); its columns have norm 1."""
    with seeded(options.seed):
        sequence = 2 * torch.randint(2, (options.pilots + options.taps - 1,)).float() - 1
    convolution: Tensor = sequence.unfold(0, options.taps, 1).flip(-1)
    return convolution / math.sqrt(options.pilots)


def simulate(A: Tensor, prior: ChannelPrior, number: int) -> tuple[Tensor, Tensor]:
    """Draw taps h (B, L) and observations y (B, M)."""
    size = number, A.shape[1]
    h = torch.bernoulli(torch.full(size, prior.rate)) * prior.tap_scale * torch.randn(size)
    return h, h @ A.T + prior.noise_scale * torch.randn(number, len(A))


def compare(options: Options, A: Tensor, snr: float, folder: Path) -> dict[str, float]:
    """Return the error of every estimator, given the true hyper-parameters."""
    prior = ChannelPrior(options.rate, 1.0, 10 ** (-snr / 20))
    with seeded(options.seed, 1):
        y_train = simulate(A, prior, options.num_train)[1]
        h, y = simulate(A, prior, options.num_test)
    power = options.rate * torch.eye(options.taps)
    gain = power @ A.T @ (A @ power @ A.T + prior.noise_scale**2 * torch.eye(len(A))).inverse()
    estimates = {
        "least squares": y @ A.pinverse().T,
        "linear": y @ gain.T,
        "mean field": mean_field(A, y, prior).mean,
    }
    for name in GUIDES:
        channel = train(options, A, prior, y_train, name, folder / name, learned=False)
        estimates[name] = estimate(channel, y)
    estimates["exact"] = exact_posterior(A, y, prior).mean
    return {
        name: float((guess - h).square().sum() / h.square().sum())
        for name, guess in estimates.items()
    }


def learn(options: Options, A: Tensor, folder: Path) -> dict[str, dict[str, float]]:
    """Estimate hyper-parameters by EM and SVI; return them with their exact log p(y) on test data.

    Both start from the same wrong values.
    """
    truth = ChannelPrior(options.rate, 1.0, 10 ** (-options.learn_snr / 20))
    start = ChannelPrior(0.5, 0.5, 1.0)
    with seeded(options.seed, 2):
        y_train = simulate(A, truth, options.num_train)[1]
        y = simulate(A, truth, options.num_test)[1]
    found = {"truth": truth, "start": start, "EM": start, "EM, mean field": start}
    field = None
    for _ in range(options.num_iterations):
        found["EM"] = em_step(A, y_train, exact_posterior(A, y_train, found["EM"]))
        field = mean_field(A, y_train, found["EM, mean field"], sweeps=5, start=field)
        found["EM, mean field"] = em_step(A, y_train, field)
    elbos = {}
    for name in GUIDES:
        channel = train(options, A, start, y_train, name, folder / name, learned=True)
        found[name] = learned_prior(channel)
        with torch.no_grad():
            loss = Trace_ELBO(100).estimate(channel.model, channel.guide, y).loss
        elbos[name] = {"ELBO": -loss.item() / len(y)}
    return {
        name: {
            **prior._asdict(),
            "log p(y)": exact_posterior(A, y, prior).log_evidence.mean().item(),
            **elbos.get(name, {}),
        }
        for name, prior in found.items()
    }


def build(options: Options, A: Tensor, prior: ChannelPrior, guide: str) -> SparseChannel:
    """Build the channel with a guide: a mean field of bits and taps, or a joint distribution."""
    supports, (M, L) = all_supports(options.taps), A.shape
    if guide == "SVI, mean field":
        q_s = OneHotCategorical(
            nn.Sequential(mlp(M, options.hidden, options.hidden, L), SupportLogits(supports))
        )
        taps = FactorisedTaps(mlp(M, options.hidden, options.hidden, 2 * L), L)
        return SparseChannel(A, supports, q_s, DiagonalNormal(taps), **prior._asdict())
    q_s = OneHotCategorical(mlp(M, options.hidden, options.hidden, len(supports)))
    q_g = FullRankNormal.over(
        lambda outputs: mlp(M + L, options.hidden, options.hidden, outputs), L
    )
    return SparseChannel(A, supports, q_s, q_g, **prior._asdict())


def train(
    options: Options,
    A: Tensor,
    prior: ChannelPrior,
    y: Tensor,
    guide: str,
    folder: Path,
    *,
    learned: bool,
) -> SparseChannel:
    """Train a channel by SVI, starting from a prior; with ``learned`` the prior is learned too."""
    with seeded(options.seed, 3):
        channel = build(options, A, prior, guide)
    own = (channel.logit_rate, channel.log_tap_scale, channel.log_noise_scale)
    for parameter in own:
        parameter.requires_grad_(learned)
    parameters = [p for p in channel.parameters() if p.requires_grad]
    adam = torch.optim.Adam(parameters, lr=options.lr)
    svi = SVI(channel.model, channel.guide, adam, loss=Trace_ELBO())
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, options.epochs)
    fit(
        *(svi, y),
        epochs=options.epochs,
        batch_size=options.batch_size,
        seed=options.seed,
        scheduler=schedule,
        folder=folder,
        resume=True,
        progress=options.progress,
    )
    return channel


@torch.no_grad()
def estimate(channel: SparseChannel, y: Tensor) -> Tensor:
    """E[h] under the guide, (B, L): a sum over the supports."""
    probability = channel.support_encoder(y).probs
    rows = y.unsqueeze(1).expand(-1, len(channel.supports), -1)
    bits = channel.supports.expand(len(y), -1, -1)
    return torch.einsum("bs,bsl->bl", probability, bits * channel.tap_encoder(rows, bits).mean)


def learned_prior(channel: SparseChannel) -> ChannelPrior:
    """The hyper-parameters of a trained channel."""
    scales = channel.log_tap_scale.exp().item(), channel.log_noise_scale.exp().item()
    return ChannelPrior(channel.logit_rate.sigmoid().item(), *scales)


if __name__ == "__main__":
    main()
