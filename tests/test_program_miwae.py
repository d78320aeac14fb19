"""MIWAE: what is missing does not count, and what was seen tells what is missing."""

import json

import pytest
import torch
from running import module
from torch import nn
from torch.distributions import MultivariateNormal

from pyro_vae import DiagonalNormal, FullRankNormal, Normal, StandardNormal, log_likelihood, mlp
from pyro_vae.data import load_table
from pyro_vae.evaluation import impute
from pyro_vae.families import StudentT, masked
from pyro_vae.models import MIWAE

DIM, LATENT, SCALE = 4, 2, 0.5


@pytest.fixture
def linear():
    """x = W z + b + noise, so that x_observed and x_missing are jointly Normal.

    The guide is the prior: then the weights p(x | z) are bounded.
    """
    torch.manual_seed(0)
    decoder = Normal(nn.Linear(LATENT, DIM), scale=SCALE)
    encoder = FullRankNormal.over(lambda outputs: nn.Linear(DIM, outputs), LATENT)
    for p in encoder.parameters():
        nn.init.zeros_(p)
    return MIWAE(StandardNormal(LATENT), decoder, encoder).double()


@pytest.fixture
def table():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(3, DIM, generator=generator, dtype=torch.float64)
    return x, torch.tensor([[1, 1, 0, 1], [0, 1, 0, 0], [1, 1, 1, 1]]).bool()


def joint(miwae):
    W, b = miwae.decoder.net.weight.detach(), miwae.decoder.net.bias.detach()
    return b, W @ W.T + SCALE**2 * torch.eye(DIM, dtype=torch.float64)


def test_evidence_is_that_of_the_observed_entries(linear, table):
    """5 standard errors of 20,000 weights are below 0.06 here (over 40 seeds: 0.012 at most)."""
    x, observed = table
    torch.manual_seed(2)
    ours = log_likelihood(linear.model, linear.guide, x, observed, num_samples=20_000)
    loc, covariance = joint(linear)
    for row, seen, estimate in zip(x, observed, ours, strict=True):
        truth = MultivariateNormal(loc[seen], covariance[seen][:, seen]).log_prob(row[seen])
        torch.testing.assert_close(estimate, truth, atol=0.06, rtol=0)


def test_fills_in_the_conditional_mean(linear, table):
    """5 standard errors of 20,000 draws are below 0.05 here."""
    x, observed = table
    torch.manual_seed(3)
    filled = impute(linear.model, linear.guide, x, observed, num_samples=20_000, with_mask=True)
    loc, covariance = joint(linear)
    for row, seen, ours in zip(x, observed, filled, strict=True):
        gain = covariance[~seen][:, seen] @ covariance[seen][:, seen].inverse()
        truth = loc[~seen] + gain @ (row[seen] - loc[seen])
        torch.testing.assert_close(ours[~seen], truth, atol=0.05, rtol=0)
        assert torch.equal(ours[seen], row[seen])


def test_missing_values_do_not_matter(table):
    x, observed = table
    torch.manual_seed(4)
    decoder = StudentT.over(lambda outputs: mlp(LATENT, 8, outputs), DIM)
    encoder = DiagonalNormal.over(lambda outputs: mlp(DIM, 8, outputs), LATENT)
    miwae = MIWAE(StandardNormal(LATENT), decoder, encoder).double()
    weights = []
    for fill in (0.0, 1e6):
        torch.manual_seed(5)
        args = x.where(observed, fill), observed
        weights.append(log_likelihood(miwae.model, miwae.guide, *args, num_samples=10))
    assert torch.equal(*weights)


def test_elements_that_depend_on_each_other_are_refused():
    p = MultivariateNormal(torch.zeros(2, 3), torch.eye(3))
    with pytest.raises(ValueError, match="expected pixels that are independent given z, got Mul"):
        masked(p, torch.ones(2, 3).bool())


def test_tables_are_standardised():
    x = load_table("wine")
    assert x.shape == (178, 13)
    torch.testing.assert_close(x.mean(0), torch.zeros(13), atol=1e-5, rtol=0)
    torch.testing.assert_close(x.var(0, correction=0), torch.ones(13))
    with pytest.raises(ValueError, match=r"expected one of iris, wine, .*, got 'cars'"):
        load_table("cars")


def test_script(tmp_path):
    """One epoch on iris: means and their errors, of every way to fill in."""
    main = module("programs/miwae").main
    options = "--tables iris --num-seeds 2 --epochs 1 --num-samples 20 --hidden 8 --no-progress"
    main(["--output-dir", str(tmp_path), *options.split()])
    result = json.loads((tmp_path / "result.json").read_text())
    assert len(result["runs"]["iris"]) == 2
    for way in ("mean", "iterative", "MIWAE"):
        mean, error = map(float, result[f"iris, {way}"].split(" +- "))
        assert 0.2 < mean < 2
        assert 0 < error < 0.5
    assert (tmp_path / "figures" / "imputation.png").is_file()
