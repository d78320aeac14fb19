"""Counts: library sizes, moments, recovery by maximum likelihood, and the script."""

import json
import math

import pytest
import torch
from running import module
from torch import nn

from pyro_vae import DiagonalNormal, StandardNormal, log_likelihood, mlp
from pyro_vae.families import (
    NegativeBinomial,
    NegativeBinomialDistribution,
    ZeroInflatedDistribution,
    ZeroInflatedNegativeBinomial,
)
from pyro_vae.models import SCVI


def test_probabilities_sum_to_one():
    log_mean, log_theta, gate = (torch.tensor(v, dtype=torch.float64) for v in (1.0, -0.5, -1.0))
    values = torch.arange(2000.0, dtype=torch.float64)
    for d in (
        NegativeBinomialDistribution(log_mean, log_theta),
        ZeroInflatedDistribution(log_mean, log_theta, gate),
    ):
        p = d.log_prob(values).exp()
        torch.testing.assert_close(p.sum(), torch.tensor(1.0, dtype=torch.float64))
        torch.testing.assert_close((p * values).sum(), d.mean)


def test_variance_of_draws():
    """mu + mu^2 / theta = 9 + 81 / 2; the standard error of 200,000 draws is below 1 %."""
    torch.manual_seed(0)
    d = NegativeBinomialDistribution(torch.tensor(9.0).log(), torch.tensor(2.0).log())
    x = d.sample((200_000,))
    assert abs(x.var() / (9 + 81 / 2) - 1) < 0.05
    zeros = (
        ZeroInflatedDistribution(d.log_mean, d.log_theta, torch.tensor(0.0)).sample((9999,)) == 0
    )
    assert abs(zeros.float().mean() - (0.5 + 0.5 * d.log_prob(torch.tensor(0.0)).exp())) < 0.025


def test_a_large_theta_is_poisson():
    x = torch.arange(10.0, dtype=torch.float64)
    log_mean = torch.tensor(1.2, dtype=torch.float64)
    ours = NegativeBinomialDistribution(log_mean, torch.tensor(16.0, dtype=torch.float64))
    poisson = torch.distributions.Poisson(log_mean.exp())
    torch.testing.assert_close(ours.log_prob(x), poisson.log_prob(x), atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", [NegativeBinomial, ZeroInflatedNegativeBinomial])
def test_library_scales_the_mean(family):
    torch.manual_seed(0)
    p = family.over(lambda outputs: mlp(2, 8, outputs), 5, library=True)
    z = torch.randn(4, 2)
    one, ten = (p(z, torch.full((4, 1), size)) for size in (1.0, 10.0))
    torch.testing.assert_close(10 * one.mean, ten.mean)
    torch.testing.assert_close(ten.base_dist.mean_of_counts.sum(-1), torch.full((4,), 10.0))
    with pytest.raises(ValueError, match="expected parents and the library size, got 1 parent"):
        p(z)
    with pytest.raises(ValueError, match=r"expected a positive, finite theta, got 0\.0"):
        family(nn.Identity(), 3, theta=0.0)


def test_a_known_library_is_no_latent():
    """With q = p for the library, a known size and one that is drawn give the same log p(x | l)."""
    torch.manual_seed(0)
    decoder = NegativeBinomial.over(lambda outputs: nn.Linear(2, outputs), 6, library=True)
    q_z, q_l = DiagonalNormal(mlp(6, 8, 4)), DiagonalNormal(nn.Linear(6, 2))
    scvi = SCVI(StandardNormal(2), decoder, q_z, q_l, library=(math.log(50.0), 1e-6)).double()
    with torch.no_grad():
        q_l.net.weight.zero_()
        q_l.net.bias.copy_(torch.tensor([math.log(50.0), 2 * math.log(1e-6)]))
    x = decoder(torch.zeros(3, 2).double(), torch.full((3, 1), 50.0).double()).sample()
    known = x, torch.full((3, 1), 50.0, dtype=torch.float64)
    torch.manual_seed(1)
    given = log_likelihood(scvi.model, scvi.guide, *known, num_samples=20_000)
    drawn = log_likelihood(scvi.model, scvi.guide, x, num_samples=20_000)
    torch.testing.assert_close(given, drawn, atol=0.1, rtol=0)


def test_maximum_likelihood_recovers_the_parameters():
    """Fisher information gives the standard errors: within 4 of them for all three parameters."""
    torch.manual_seed(0)
    truth = torch.tensor([2.0, 0.7, -1.0], dtype=torch.float64)
    x = ZeroInflatedDistribution(*truth).sample((4000,))
    guess = torch.zeros(3, dtype=torch.float64, requires_grad=True)

    def loss(parameters):
        return -ZeroInflatedDistribution(*parameters).log_prob(x).sum()

    optimiser = torch.optim.LBFGS([guess], max_iter=100, line_search_fn="strong_wolfe")

    def closure():
        optimiser.zero_grad()
        value = loss(guess)
        value.backward()
        return value

    optimiser.step(closure)
    information = torch.autograd.functional.hessian(loss, guess.detach())
    error = information.inverse().diagonal().sqrt()
    assert (error < 0.2).all()
    assert ((guess - truth).abs() < 4 * error).all()


def test_script(tmp_path):
    """A few steps: numbers for both ways to treat the library, and for the digits."""
    main = module("programs/counts").main
    options = "--epochs 2 --num-data 200 --num-simulations 2 --digit-epochs 1 --num-samples 5"
    main(["--output-dir", str(tmp_path), *options.split(), "--kinds", "5", "--no-progress"])
    result = json.loads((tmp_path / "result.json").read_text())
    for name in ("library known", "library latent"):
        assert 0 < result[f"{name}, dropout, rms error"] < 0.5
    assert -400 < result["digits, NegativeBinomial"] < -80
    assert (tmp_path / "figures" / "library-known.png").is_file()
