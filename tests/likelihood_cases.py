"""Every likelihood, and ``DiagonalNormal``, beside a trusted density from scipy."""

from typing import NamedTuple

import numpy as np
import scipy.integrate
import scipy.special
import scipy.stats
import torch
from torch import nn

from pyro_vae import families as c
from pyro_vae import mlp

LATENT = 3
DIM = 5
BATCH = 4


def logistic_bins(out, x):
    """The discretised logistic by its definition, from the tail that is more accurate."""
    loc, log_scale = np.split(out, 2, -1)
    upper = np.where(x == 255, np.inf, ((x + 0.5) / 255 - loc) / np.exp(log_scale))
    lower = np.where(x == 0, -np.inf, ((x - 0.5) / 255 - loc) / np.exp(log_scale))
    cdf, sf = scipy.stats.logistic.cdf, scipy.stats.logistic.sf
    return np.log(np.where(lower > 0, sf(lower) - sf(upper), cdf(upper) - cdf(lower)))


@np.vectorize
def moment(logits, power=0):
    """The integral of t^power exp(logits t) over [0, 1], by quadrature."""
    return scipy.integrate.quad(lambda t: t**power * np.exp(logits * t), 0, 1)[0]


def diagonal_normal(out, x):
    loc, log_variance = np.split(out, 2, -1)
    return scipy.stats.norm(loc, np.exp(log_variance / 2)).logpdf(x)


def student_t(out, x):
    loc, scale, degrees = np.split(out, 3, -1)
    degrees, scale = np.logaddexp(0, degrees) + 3, np.logaddexp(0, scale) + 1e-3
    return scipy.stats.t(degrees, loc, scale).logpdf(x)


def negative_binomial(out, x, theta=2.5):
    return scipy.stats.nbinom(theta, theta / (theta + np.exp(out))).logpmf(x)


def zero_inflated(out, x):
    log_mean, gate = np.split(out, 2, -1)
    dropped = scipy.special.expit(gate)
    return np.log(dropped * (x == 0) + (1 - dropped) * np.exp(negative_binomial(log_mean, x)))


class Case(NamedTuple):
    build: object  # net -> conditional
    family: type
    values: object  # a tensor of uniform random numbers -> values in the support
    log_prob: object  # (the network's outputs, values) -> elementwise truth
    mean: object  # the network's outputs -> elementwise truth


def real(u):
    return 4 * u - 2


def unit(u):
    return u


def expit_of(scale=1):
    return lambda out: scale * scipy.special.expit(out)


CASES = {
    "DiagonalNormal": Case(
        c.DiagonalNormal,
        c.DiagonalNormal,
        real,
        diagonal_normal,
        lambda out: np.split(out, 2, -1)[0],
    ),
    "Bernoulli": Case(
        c.Bernoulli,
        c.Bernoulli,
        torch.round,
        lambda out, x: scipy.stats.bernoulli(scipy.special.expit(out)).logpmf(x),
        expit_of(),
    ),
    "ContinuousBernoulli": Case(
        c.ContinuousBernoulli,
        c.ContinuousBernoulli,
        unit,
        lambda out, x: out * x - np.log(moment(out)),
        lambda out: moment(out, 1) / moment(out),
    ),
    "Normal": Case(
        lambda net, **kw: c.Normal(net, scale=0.3, **kw),
        c.Normal,
        unit,
        lambda out, x: scipy.stats.norm(out, 0.3).logpdf(x),
        lambda out: out,
    ),
    "Normal, learned scale": Case(
        lambda net, **kw: c.Normal(net, scale=2.0, learned=True, **kw),
        c.Normal,
        unit,
        lambda out, x: scipy.stats.norm(out, 2.0).logpdf(x),
        lambda out: out,
    ),
    "StudentT": Case(
        c.StudentT,
        c.StudentT,
        real,
        student_t,
        lambda out: np.split(out, 3, -1)[0],
    ),
    "Binomial": Case(
        lambda net, **kw: c.Binomial(net, total_count=16, **kw),
        c.Binomial,
        lambda u: (16 * u).round(),
        lambda out, x: scipy.stats.binom(16, scipy.special.expit(out)).logpmf(x),
        expit_of(16),
    ),
    "NegativeBinomial": Case(
        lambda net, **kw: c.NegativeBinomial(net, theta=2.5, **kw),
        c.NegativeBinomial,
        lambda u: (9 * u).round(),
        negative_binomial,
        np.exp,
    ),
    "ZeroInflatedNegativeBinomial": Case(
        lambda net, **kw: c.ZeroInflatedNegativeBinomial(net, theta=2.5, **kw),
        c.ZeroInflatedNegativeBinomial,
        lambda u: (9 * u - 3).clamp(min=0).round(),
        zero_inflated,
        lambda out: np.exp(out[..., :DIM]) * scipy.special.expit(-out[..., DIM:]),
    ),
    "DiscretizedLogistic": Case(
        c.DiscretizedLogistic,
        c.DiscretizedLogistic,
        lambda u: (255 * u).round(),
        logistic_bins,
        lambda out: sum(x * np.exp(logistic_bins(out, np.float64(x))) for x in range(256)),
    ),
}
LIKELIHOODS = [name for name in CASES if name != "DiagonalNormal"]


def make(name, seed=0):
    """The conditional over a small network, in float32."""
    torch.manual_seed(seed)
    case = CASES[name]
    return case.build(mlp(LATENT, 8, case.family.outputs(DIM)))


def given(name, out):
    """The distribution for given outputs of the network."""
    return CASES[name].build(nn.Identity()).to(out.dtype)(out)


def draw(name, dtype=torch.float64, batch=BATCH, spread=1.5):
    """Random outputs of a network, and values in the support."""
    torch.manual_seed(0)
    case = CASES[name]
    out = spread * torch.randn(batch, case.family.outputs(DIM), dtype=dtype)
    return out, case.values(torch.rand(batch, DIM, dtype=dtype))
