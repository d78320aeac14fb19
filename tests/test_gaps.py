"""The gaps between log p(x) and the ELBO, on a model whose best guides are known."""

import pytest
import torch
from linear_gaussian import LinearGaussian
from programs import PER_DATUM

from pyro_vae.evaluation.suboptimality import FAMILIES, DiagonalLocal, FullRankLocal, LocalFit, gaps


@pytest.fixture
def truth() -> LinearGaussian:
    torch.manual_seed(0)
    return LinearGaussian(latent=4, observed=8)


def mean_field_gap(truth: LinearGaussian) -> float:
    """KL of the best diagonal normal to a normal of precision P: 1/2 (sum_d log P_dd - log det
    P)."""
    precision = torch.linalg.inv(truth.posterior_cov)
    return 0.5 * float(precision.diagonal().log().sum() - precision.logdet())


def test_full_rank_has_no_approximation_gap(truth):
    vae, x = truth.vae(truth.wrong_encoder(shift=0.3)), truth.data(20)
    result = gaps(
        vae.model, vae.guide, x, fit=LocalFit(FullRankLocal), log_px=truth.log_likelihood(x)
    )
    assert float(result.approximation.abs().max()) < 1e-3
    kl = torch.distributions.kl_divergence(vae.encoder(x), truth.posterior(x)).detach()
    torch.testing.assert_close(
        result.amortisation.mean(), kl.mean(), rtol=0.02, atol=0
    )  # 20,000 draws


def test_diagonal_has_the_mean_field_gap(truth):
    vae, x = truth.vae(truth.wrong_encoder(shift=0.3)), truth.data(40)
    result = gaps(
        vae.model, vae.guide, x, fit=LocalFit(DiagonalLocal), log_px=truth.log_likelihood(x)
    )
    assert float(result.approximation.mean()) == pytest.approx(
        mean_field_gap(truth), abs=0.02
    )  # standard error 0.006


def test_gaps_add_up_and_vanish_for_the_posterior(truth):
    vae, x = truth.vae(), truth.data(5)
    result = gaps(vae.model, vae.guide, x, fit=LocalFit(FullRankLocal))
    torch.testing.assert_close(
        result.approximation + result.amortisation, result.log_px - result.elbo
    )
    for gap in (result.approximation, result.amortisation):
        torch.testing.assert_close(gap, torch.zeros_like(gap), atol=1e-3, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", PER_DATUM)
def test_local_fit_improves_on_every_pair(name, family):
    """An untrained guide is worse than a guide found for each datum; parameters are left alone."""
    torch.manual_seed(0)
    p = PER_DATUM[name]()
    result = gaps(
        p.model, p.guide, *p.args, fit=LocalFit(FAMILIES[family], num_steps=60), num_samples=300
    )
    assert float(result.amortisation.mean()) > 0
    assert float(result.approximation.mean()) > -0.05
    assert all(parameter.grad is None for parameter in p.module.parameters())


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_starts_at_the_moments(family):
    draws = 3 * torch.randn(5000, 2, 3, generator=torch.Generator().manual_seed(0)) + 1
    q = FAMILIES[family](draws)()
    torch.testing.assert_close(q.mean, draws.mean(0))
    torch.testing.assert_close(q.stddev, draws.std(0))


def test_errors(truth):
    with pytest.raises(ValueError, match="expected num_steps of at least 1, got 0"):
        LocalFit(num_steps=0)
