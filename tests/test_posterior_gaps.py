"""What each family at best misses of the correlated posterior of a linear-Gaussian model."""

import pytest
import torch
from families import FAMILIES, inputs
from linear_gaussian import LinearGaussian
from torch import nn
from torch.distributions import kl_divergence

from pyro_vae import SVI, DiagonalNormal, FullRankNormal, Trace_ELBO
from pyro_vae.objectives.doubly_reparameterised import STL
from pyro_vae.programs.isolation import looking


class Constant(nn.Module):
    """An encoder for one datum: outputs that are parameters."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.value = nn.Parameter(0.1 * inputs(outputs))

    def forward(self, x):
        return self.value.expand(*x.shape[:-1], -1)


def fit(truth: LinearGaussian, family: nn.Module, loss, steps: int, rate: float):
    """Fit q(z) to one posterior; return KL(q || posterior) in nats, and its standard error."""
    torch.manual_seed(0)
    x = truth.data(1)
    vae = truth.vae(family.double())
    vae.decoder.requires_grad_(False)
    optim = torch.optim.Adam(family.parameters(), rate)
    svi = SVI(vae.model, vae.guide, optim, loss)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optim, steps)
    for _ in range(steps):
        svi.step(x)
        decay.step()
    with looking([vae]):
        q = family(x)
        z = q.rsample((20_000,))
        gap = q.log_prob(z) - truth.posterior(x).log_prob(z)
    return float(gap.mean()), float(gap.std() / 20_000**0.5)


def mean_field_gap(truth: LinearGaussian) -> float:
    """KL(q* || posterior) of the best diagonal q: the posterior's precision, its diagonal alone."""
    precision = torch.linalg.inv(truth.posterior_cov)
    return 0.5 * float(precision.diagonal().log().sum() - torch.logdet(precision))


def test_full_rank_finds_the_posterior():
    truth = LinearGaussian()
    family = FullRankNormal(Constant(FullRankNormal.outputs(4)))
    gap, error = fit(truth, family, STL(8), 500, 0.1)
    assert abs(gap) < 1e-3 + 4 * error
    with torch.no_grad():
        assert float(kl_divergence(family(truth.data(1)), truth.posterior(truth.data(1)))) < 1e-3


def test_diagonal_misses_exactly_the_correlations():
    truth = LinearGaussian()
    family = DiagonalNormal(Constant(8))
    gap, error = fit(truth, family, Trace_ELBO(32), 1500, 0.03)
    assert mean_field_gap(truth) > 0.5
    assert abs(gap - mean_field_gap(truth)) < 4 * error + 0.005
    precision = torch.linalg.inv(truth.posterior_cov).diagonal()
    torch.testing.assert_close(
        family(truth.data(1)).variance[0].detach(), 1 / precision, rtol=0.1, atol=0
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "steps", "rate"), [("low rank", 300, 0.08), ("mixture", 300, 0.08), ("iaf", 200, 0.06)]
)
def test_other_families_lie_between(name, steps, rate):
    truth = LinearGaussian()
    torch.manual_seed(0)
    family = FAMILIES[name](8, 4)
    family.net = Constant(family.net[-1].out_features)
    if name == "mixture":  # from afar one component takes all: start around the posterior mean
        start = truth.posterior(truth.data(1)).mean[0]
        family.net.value.data[:] = torch.cat(
            [torch.zeros(3), (start + 0.3 * inputs(3, 4)).flatten(), torch.full((12,), -3.0)]
        )
    gap, error = fit(truth, family, Trace_ELBO(16), steps, rate)
    assert -4 * error < gap < mean_field_gap(truth) - 4 * error
