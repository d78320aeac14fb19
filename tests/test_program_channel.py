"""Sparse channels: the exact posterior against brute force, EM, the mean field, and SVI."""

import json
import math
from itertools import pairwise

import pyro.distributions as dist
import pytest
import torch
from running import module
from torch import nn
from torch.distributions import MultivariateNormal

from pyro_vae import DiagonalNormal, Trace_ELBO, log_weights
from pyro_vae.families import OneHotCategorical
from pyro_vae.inference import ChannelPrior, all_supports, em_step, exact_posterior, mean_field
from pyro_vae.models import SparseChannel
from pyro_vae.nets import FactorisedTaps, SupportLogits

PILOTS, TAPS, ROWS = 4, 3, 6
PRIOR = ChannelPrior(0.3, 1.5, 0.4)


def data(rows=ROWS):
    generator = torch.Generator().manual_seed(0)
    A = torch.randn(PILOTS, TAPS, generator=generator, dtype=torch.float64)
    s = torch.rand(rows, TAPS, generator=generator, dtype=torch.float64) < PRIOR.rate
    h = s * PRIOR.tap_scale * torch.randn(rows, TAPS, generator=generator, dtype=torch.float64)
    noise = torch.randn(rows, PILOTS, generator=generator, dtype=torch.float64)
    return A, h @ A.T + PRIOR.noise_scale * noise


def test_evidence_is_a_mixture_of_normals():
    A, y = data()
    terms = []
    for s in all_supports(TAPS).double():
        covariance = PRIOR.tap_scale**2 * A @ s.diag() @ A.T
        covariance += PRIOR.noise_scale**2 * torch.eye(PILOTS, dtype=torch.float64)
        log_prior = (s * math.log(PRIOR.rate) + (1 - s) * math.log(1 - PRIOR.rate)).sum()
        normal = MultivariateNormal(torch.zeros(PILOTS, dtype=torch.float64), covariance)
        terms.append(log_prior + normal.log_prob(y))
    log_joint = torch.stack(terms)
    posterior = exact_posterior(A, y, PRIOR)
    torch.testing.assert_close(posterior.log_evidence, log_joint.logsumexp(0))
    torch.testing.assert_close(posterior.supports, log_joint.softmax(0).T)
    torch.testing.assert_close(posterior.active, posterior.supports @ all_supports(TAPS).double())


def test_moments_of_the_taps():
    """Against importance sampling from the prior; 5 standard errors of 400,000 draws."""
    A, y = data()
    torch.manual_seed(1)
    N = 400_000
    s = (torch.rand(N, TAPS) < PRIOR.rate).double()
    h = s * PRIOR.tap_scale * torch.randn(N, TAPS, dtype=torch.float64)
    squares = (y.unsqueeze(1) - h @ A.T).square().sum(-1)  # (B, N)
    weight = (-0.5 * squares / PRIOR.noise_scale**2).softmax(-1)
    size = 1 / weight.square().sum(-1)
    posterior = exact_posterior(A, y, PRIOR)
    values = {"mean": h, "power": h.square(), "active": s}
    for name, value in values.items():
        mean = weight @ value
        error = ((weight @ value.square() - mean.square()) / size.unsqueeze(-1)).sqrt()
        gap = (getattr(posterior, name) - mean).abs()
        assert (gap < 5 * error + 1e-6).all(), name
    mean = (weight * squares).sum(-1)
    error = (((weight * squares.square()).sum(-1) - mean.square()) / size).sqrt()
    assert ((posterior.residual - mean).abs() < 5 * error).all()


@pytest.mark.parametrize("approximate", ["exact", "mean field"])
def test_em_never_lowers_the_bound(approximate):
    A, y = data(200)
    prior = ChannelPrior(0.5, 0.5, 1.0)
    bounds, posterior = [], None
    for _ in range(30):
        if approximate == "exact":
            posterior = exact_posterior(A, y, prior)
        else:
            posterior = mean_field(A, y, prior, 3, start=posterior)
        bounds.append(posterior.log_evidence.sum().item())
        prior = em_step(A, y, posterior)
    assert all(b >= a - 1e-6 for a, b in pairwise(bounds))
    assert bounds[-1] > bounds[0] + 100


def test_em_recovers_what_was_simulated():
    """Standard errors of 2000 channels are about 0.01, 0.03 and 0.005."""
    A, y = data(2000)
    prior = ChannelPrior(0.5, 0.5, 1.0)
    for _ in range(80):
        prior = em_step(A, y, exact_posterior(A, y, prior))
    for ours, truth, error in zip(prior, PRIOR, (0.01, 0.03, 0.005), strict=True):
        assert abs(ours - truth) < 5 * error


def test_the_mean_field_climbs_below_the_evidence():
    A, y = data()
    elbos = [mean_field(A, y, PRIOR, sweeps).log_evidence for sweeps in (1, 2, 5, 50)]
    for before, after in pairwise(elbos):
        assert (after >= before - 1e-9).all()
    assert (elbos[-1] < exact_posterior(A, y, PRIOR).log_evidence).all()


class Table(nn.Module):
    """Free outputs for each of the rows, which it tells by their first number."""

    def __init__(self, y, outputs):
        super().__init__()
        self.keys = y[:, 0]
        self.outputs = nn.Parameter(torch.zeros(len(y), outputs, dtype=y.dtype))

    def forward(self, y):
        return self.outputs[(y[..., :1] == self.keys).int().argmax(-1)]


def factorised(A, y):
    """The family of the mean field, with parameters of its own for each datum."""
    supports = all_supports(TAPS).double()
    q_s = OneHotCategorical(nn.Sequential(Table(y, TAPS), SupportLogits(supports)))
    q_g = DiagonalNormal(FactorisedTaps(Table(y, 2 * TAPS), TAPS))
    return SparseChannel(A, supports, q_s, q_g, **PRIOR._asdict()).double()


def test_coordinate_ascent_ends_where_svi_stands_still():
    """There the program's ELBO is the mean field's, and its gradient 0: 5 standard errors."""
    A, y = data()
    field = mean_field(A, y, PRIOR, 100)
    channel = factorised(A, y)
    v = 1 / (A.square().sum(0) / PRIOR.noise_scale**2 + PRIOR.tap_scale**-2)
    loc = field.mean / field.active
    bits, taps = channel.support_encoder.net[0].outputs, channel.tap_encoder.net.net.outputs
    with torch.no_grad():
        bits.copy_(field.active.logit())
        taps.copy_(torch.cat([loc, v.log().expand_as(loc)], -1))
        channel.tap_encoder.net.idle.fill_(2 * math.log(PRIOR.tap_scale))
    torch.manual_seed(2)
    draws = []
    for _ in range(20):
        loss = Trace_ELBO(500).estimate(channel.model, channel.guide, y).loss
        grads = torch.autograd.grad(loss, (bits, taps))
        draws.append(torch.cat([loss.detach().view(1), *(g.flatten() for g in grads)]))
    draws = torch.stack(draws)
    draws[:, 0] += field.log_evidence.sum()
    error = draws.std(0) / math.sqrt(len(draws))
    assert (draws.mean(0).abs() < 5 * error + 1e-6).all()
    assert (error < 0.05).all()


class ExactTaps(nn.Module):
    """p(g | y, s): the Normal with precision D A' A D / noise^2 + I / tap^2."""

    def __init__(self, A):
        super().__init__()
        self.A = A

    def forward(self, y, bits):
        masked = self.A * bits.unsqueeze(-2)
        precision = masked.mT @ masked / PRIOR.noise_scale**2
        precision = precision + torch.eye(TAPS, dtype=y.dtype) / PRIOR.tap_scale**2
        b = (masked.mT @ y.unsqueeze(-1)) / PRIOR.noise_scale**2
        loc = torch.linalg.solve(precision, b).squeeze(-1)
        return dist.MultivariateNormal(loc, precision_matrix=precision)


class ExactSupport(nn.Module):
    """p(s | y)."""

    def __init__(self, A):
        super().__init__()
        self.A = A

    def forward(self, y):
        return dist.OneHotCategorical(exact_posterior(self.A, y, PRIOR).supports)


def test_the_exact_posterior_as_a_guide_has_constant_weights():
    """Each weight of the program is p(y), and so the ELBO is log p(y), without any error."""
    A, y = data()
    supports = all_supports(TAPS).double()
    channel = SparseChannel(A, supports, ExactSupport(A), ExactTaps(A), **PRIOR._asdict()).double()
    evidence = exact_posterior(A, y, PRIOR).log_evidence
    weights = log_weights(channel.model, channel.guide, y, num_samples=5)
    torch.testing.assert_close(weights, evidence.expand(5, -1), atol=1e-6, rtol=0)
    with torch.no_grad():
        loss = Trace_ELBO().estimate(channel.model, channel.guide, y).loss
    torch.testing.assert_close(-loss, evidence.sum(), atol=1e-6, rtol=0)


def test_refusals():
    A, y = data()
    with pytest.raises(ValueError, match=r"expected 1 to 10 taps to enumerate supports of, got 11"):
        all_supports(11)
    with pytest.raises(ValueError, match=r"expected A \(M, L\) and y \(B, M\), got \(4, 3\)"):
        exact_posterior(A, y[:, :2], PRIOR)
    with pytest.raises(ValueError, match=r"expected a rate in \(0, 1\) and positive scales, got"):
        mean_field(A, y, ChannelPrior(1.0, 1.0, 1.0))
    with pytest.raises(ValueError, match=r"expected a rate in \(0, 1\) and positive scales, got"):
        SparseChannel(A, all_supports(3), nn.Identity(), nn.Identity(), noise_scale=0.0)


def test_script(tmp_path):
    """A few steps: every estimator has an error, and EM finds a better prior than its start."""
    main = module("programs/channel").main
    options = "--taps 3 --pilots 4 --snr 10 --num-train 200 --num-test 100 --epochs 1 --hidden 8"
    options += " --num-iterations 20 --no-progress"
    main(["--output-dir", str(tmp_path), *options.split()])
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["exact, 10 dB"] < result["linear, 10 dB"] < result["least squares, 10 dB"]
    assert result["EM, log p(y)"] > result["start, log p(y)"] + 0.5
    for guide in ("SVI, mean field", "SVI, joint"):
        assert result[f"{guide}, ELBO"] < result[f"{guide}, log p(y)"]
    assert (tmp_path / "figures" / "errors.png").is_file()
