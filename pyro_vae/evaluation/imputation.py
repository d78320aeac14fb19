"""Repair of damaged data by importance weighting: impute missing pixels, remove noise.

E[h(z) | x] ~ sum_k w_k h(z_k) / sum_k w_k,   w_k = p(x | z_k) p(z_k) / q(z_k | x),  z_k ~ q(z | x).

Here p(x | z) is the likelihood of the observed data: some of the pixels, or pixels with noise.

Source: Mattei & Frellsen, *MIWAE: Deep Generative Modelling and Imputation of Incomplete Data*,
2019.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import pyro.distributions as dist
import torch
from pyro.poutine import Trace
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from ..families.missing import elements, masked
from ..programs.checks import at_least
from ..programs.draw import Draw
from ..programs.pair import Pair
from ..programs.rows import Call, chunks
from ..programs.sites import Program, stochastic_sites

Channel = Callable[[Any], Any]
"""A map from the distribution p(x | z) of clean data to the distribution of observed data."""


CLEAN = "clean"  # the key under which a site keeps its distribution before the channel


class seen_through(Messenger):  # type: ignore[misc]
    """Observe through a channel: p(x | z) of every observed site becomes ``channel(p)``."""

    def __init__(self, channel: Channel) -> None:
        super().__init__()
        self.channel = channel

    def _pyro_sample(self, msg: Any) -> None:
        if msg["is_observed"] and not site_is_subsample(msg):
            msg["infer"] = {**msg["infer"], CLEAN: msg["fn"]}
            msg["fn"] = self.channel(msg["fn"])


def only(observed: Tensor) -> Channel:
    """The channel that keeps only the pixels where ``observed`` (B, ...) is true.

    log p(x) is the sum over these pixels.
    """
    return lambda p: masked(p, observed)


def bit_flips(rate: float) -> Channel:
    """The channel that flips each binary pixel with probability ``rate``.

    P(x = 1) = rate + (1 - 2 rate) p, elementwise for any shape.

    Raises ``ValueError`` for a rate outside [0, 0.5].
    """
    if not 0 <= rate <= 0.5:
        raise ValueError(f"expected a rate of flips in [0, 0.5], got {rate}")

    def channel(p: Any) -> Any:
        base, event_dim = elements(p)
        return dist.Bernoulli(probs=rate + (1 - 2 * rate) * base.mean).to_event(event_dim)

    return channel


def impute(
    model: Program,
    guide: Program,
    x: Tensor,
    observed: Tensor,
    *,
    num_samples: int = 1000,
    sample: bool = False,
    fill: float | Tensor = 0.0,
    with_mask: bool = False,
    chunk_draws: int = 2048,
) -> Tensor:
    """Return x (B, ...) with E[x_missing | x_observed] where the mask ``observed`` is false.

    With ``sample`` the missing pixels are a draw from p(x_missing | x_observed). The input of the
    guide has ``fill`` at missing pixels (a number, or an image such as the mean); the model's
    likelihood leaves them out. The programs are called with x alone, or ``with_mask`` with
    (x, observed). The values of x at missing pixels do not matter and may be NaN.

    Raises ``ValueError`` for a mask of another shape than x, or a likelihood whose pixels are not
    independent given z.

    >>> impute(vae.model, vae.guide, torch.ones(3, 64), torch.arange(64).expand(3, -1) < 32).shape
    torch.Size([3, 64])
    """
    if observed.shape != x.shape or observed.dtype != torch.bool:
        raise ValueError(
            f"expected a boolean mask of shape {tuple(x.shape)}, "
            f"got {observed.dtype} of {tuple(observed.shape)}"
        )

    def partial(observed: Tensor, x: Tensor, _: Tensor) -> None:
        with seen_through(only(observed)):
            model(x, observed) if with_mask else model(x)

    def filled(observed: Tensor, _: Tensor, x: Tensor) -> None:
        guide(x, observed) if with_mask else guide(x)

    args = observed, x.where(observed, 0), x.where(observed, torch.as_tensor(fill).to(x))
    recovered = _recover(Pair(partial, filled), args, num_samples, chunk_draws)
    return x.where(observed, (recovered.draw if sample else recovered.mean).reshape(x.shape))


def denoise(
    model: Program,
    guide: Program,
    x: Tensor,
    channel: Channel | None = None,
    *,
    num_samples: int = 1000,
    chunk_draws: int = 2048,
) -> Tensor:
    """Return E[clean x' | x] for noisy x (B, ...), observed through a ``channel``.

    A channel is for example :func:`bit_flips`. Without a channel, the only noise is that of the
    model's likelihood. The programs are called with x alone.

    >>> denoise(vae.model, vae.guide, torch.ones(3, 64), bit_flips(0.1)).shape
    torch.Size([3, 64])
    """

    def noisy(x: Tensor) -> None:
        with seen_through(channel or (lambda p: p)):
            model(x)

    pair = Pair(noisy, guide)
    return _recover(pair, (x,), num_samples, chunk_draws).mean.reshape(x.shape)


class _Recovered(NamedTuple):
    """The mean and a draw of the clean data given the observed data, (B, ...)."""

    mean: Tensor
    draw: Tensor


def _recover(
    pair: Pair, args: tuple[Tensor, ...], num_samples: int, chunk_draws: int
) -> _Recovered:
    """Return the posterior mean and a draw of the clean data, computed for a few data at a time."""
    at_least(1, num_samples=num_samples, chunk_draws=chunk_draws)
    parts = [
        _recover_rows(pair, call, num_samples, chunk_draws)
        for call in pair.parts((args, {}), chunk_draws // num_samples)
    ]
    return _Recovered(*(torch.cat(part) for part in zip(*parts, strict=True)))


def _recover_rows(pair: Pair, call: Call, num_samples: int, chunk_draws: int) -> _Recovered:
    """The same for some data: update a weighted mean and a weighted draw over the samples."""
    with pair.looking():
        sizes = [part.stop - part.start for part in chunks(num_samples, chunk_draws)]
        parts = (_weighted(pair.draw(*call, num_particles=size)) for size in sizes)
        total, (mean, kept) = next(parts)
        for log_weight, (new_mean, new_draw) in parts:
            total = torch.logaddexp(total, log_weight)
            share = (log_weight - total).exp()
            mean = torch.lerp(mean, new_mean, _like(share, mean).to(mean))
            kept = torch.where(_like(torch.rand_like(share) < share, kept), new_draw, kept)
    return _Recovered(mean, kept)


def _weighted(draw: Draw) -> tuple[Tensor, _Recovered]:
    """Return log sum_k w_k, (B,), and the weighted mean and a weighted draw of the clean data."""
    plate = draw.structure.plate
    if plate is None or plate.dim != -1:
        raise ValueError("expected one plate, over the data, around every sample site")
    log_weight = draw.log_weight
    clean = [_clean(trace) for trace in draw.model_traces]
    means, draws = (
        torch.cat(each).reshape(*log_weight.shape, *each[0].shape[1:])
        for each in ([p.mean for p in clean], [p.sample() for p in clean])
    )
    mean = (_like(log_weight.softmax(0), means) * means).sum(0)
    index = log_weight.T.softmax(-1).multinomial(1).squeeze(-1)
    chosen = draws[index, torch.arange(len(index), device=index.device)]
    return log_weight.logsumexp(0), _Recovered(mean, chosen)


def _like(value: Tensor, other: Tensor) -> Tensor:
    """Add dimensions of size 1 on the right until there are as many as in ``other``."""
    return value.reshape(*value.shape, *[1] * (other.ndim - value.ndim))


def _clean(model_trace: Trace) -> Any:
    """The distribution of the clean data."""
    sites = [site for site in stochastic_sites(model_trace) if CLEAN in site["infer"]]
    if len(sites) != 1:
        raise ValueError(f"expected one observed site, got {[site['name'] for site in sites]}")
    return sites[0]["infer"][CLEAN]
