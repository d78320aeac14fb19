"""Faults that random programs found: pairs without a latent site, plain functions whose first
batch leaves a part idle."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from sentences import refused
from torch import nn

from pyro_vae import SVI, Bernoulli, DiagonalNormal, Trace_ELBO, TraceMeanField_ELBO, log_likelihood
from pyro_vae.objectives.doubly_reparameterised import STL, DReG
from pyro_vae.objectives.free_bits import FreeBits
from pyro_vae.objectives.importance_weighted import IWAE
from pyro_vae.objectives.renyi import Renyi
from pyro_vae.objectives.score_function import ScoreFunction_ELBO
from pyro_vae.objectives.wake_sleep import ReweightedWakeSleep

ELBOS = [Trace_ELBO(), Trace_ELBO(3), TraceMeanField_ELBO(), TraceMeanField_ELBO(3), FreeBits()]
WEIGHTED = [IWAE(3), DReG(3), STL(3), Renyi(3), ReweightedWakeSleep(3), ScoreFunction_ELBO(3)]


def all_observed():
    loc, x = (
        torch.zeros(3, requires_grad=True),
        torch.randn(5, 3, generator=torch.Generator().manual_seed(0)),
    )

    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x)

    return model, lambda x: None, x, -dist.Normal(loc, 1.0).log_prob(x).sum()


@pytest.mark.parametrize("objective", ELBOS, ids=repr)
def test_without_a_latent_site_the_elbo_is_log_p(objective):
    model, guide, x, expected = all_observed()
    torch.testing.assert_close(objective.estimate(model, guide, x).loss, expected)


@pytest.mark.parametrize("objective", ELBOS, ids=repr)
def test_a_guide_of_a_factor_alone(objective):
    """It draws nothing: the ELBO is log p less the factor."""
    model, _, x, expected = all_observed()

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.factor("bonus", x.sum(-1), has_rsample=True)

    torch.testing.assert_close(objective.estimate(model, guide, x).loss, expected + x.sum())


@pytest.mark.parametrize("objective", WEIGHTED, ids=repr)
def test_without_a_latent_site_there_are_no_weights(objective):
    model, guide, x, _ = all_observed()
    with refused():
        objective.estimate(model, guide, x)


def test_without_a_latent_site_log_likelihood_is_refused():
    model, guide, x, _ = all_observed()
    with refused():
        log_likelihood(model, guide, x, num_samples=4)


def test_plain_functions_may_leave_a_part_idle():
    q_y, q_z, p_x = nn.Linear(4, 3), nn.Linear(7, 4), nn.Linear(5, 4)

    def model(x, y=None):
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", dist.OneHotCategorical(x.new_ones(3) / 3), obs=y)
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            pyro.sample("x", Bernoulli(p_x)(torch.cat([z, y], -1)), obs=x)

    def guide(x, y=None):
        with pyro.plate("data", len(x)):
            if y is None:
                y = pyro.sample("y", dist.OneHotCategorical(logits=q_y(x)))
            pyro.sample("z", DiagonalNormal(q_z)(torch.cat([x, y], -1)))

    parameters = [p for net in (q_y, q_z, p_x) for p in net.parameters()]
    svi = SVI(model, guide, torch.optim.Adam(parameters), Trace_ELBO())
    assert svi.step(torch.ones(3, 4), torch.eye(3)).isfinite()
    assert svi.step(torch.ones(3, 4)).isfinite()
