"""Faults that an audit found: a factor of the guide is part of an ELBO and of no importance
weight."""

import math

import pyro
import pyro.infer
import pytest
import torch
from linear_gaussian import LinearGaussian
from pyro import poutine
from sentences import result_or_refusal

from pyro_vae import Trace_ELBO, log_likelihood, log_weights
from pyro_vae.evaluation.ais import AIS
from pyro_vae.evaluation.report import evaluate
from pyro_vae.objectives.importance_weighted import IWAE

D = 6
REPORTS = {
    "log_weights": lambda *pair: log_weights(*pair, num_samples=5),
    "log_likelihood": lambda *pair: log_likelihood(*pair, num_samples=5),
    "evaluate": lambda *pair: evaluate(*pair, num_samples=5),
    "annealed": lambda *pair: AIS(4, 5).log_weights(*pair),
}

# 13. Factors in a guide

FACTOR = 5.0


def with_factor(vae):
    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", vae.encoder(x))
            pyro.factor(
                "penalty", torch.full((len(x),), FACTOR, dtype=torch.float64), has_rsample=True
            )

    return guide


@pytest.mark.parametrize("name", ["log_weights", "log_likelihood", "evaluate", "annealed"])
def test_a_factor_of_the_guide_is_in_no_weight(name):
    truth = LinearGaussian(latent=2, observed=D)
    vae, x = truth.vae(), truth.data(7)
    value = REPORTS[name](vae.model, with_factor(vae), x)
    value = (
        value.log_px
        if name == "evaluate"
        else value.logsumexp(0) - math.log(len(value))
        if value.ndim == 2
        else value
    )
    torch.testing.assert_close(
        value, truth.log_likelihood(x), atol=1e-6 if name != "annealed" else 1e-3, rtol=0
    )


@pytest.mark.parametrize("name", ["iwae", "kl"])
def test_a_factor_of_the_guide_is_in_no_bound_of_weights(name):
    truth = LinearGaussian(latent=2, observed=D)
    vae, x = truth.vae(), truth.data(7)
    if name == "kl":
        parts = [
            evaluate(vae.model, guide, x, num_samples=5, kl_draws=2000).kl
            for guide in (vae.guide, with_factor(vae))
        ]
        assert parts[0].kl == pytest.approx(parts[1].kl, abs=0.2)
        assert parts[0].mutual_information == pytest.approx(parts[1].mutual_information, abs=0.1)
    else:
        loss = result_or_refusal(
            lambda: IWAE(3).estimate(vae.model, with_factor(vae), x).loss.detach()
        )
        assert loss is None or float(loss) == pytest.approx(-float(truth.log_likelihood(x).sum()))


def test_a_factor_of_the_guide_is_part_of_the_elbo():
    truth = LinearGaussian(latent=2, observed=D)
    vae, x = truth.vae(), truth.data(7)
    loss = Trace_ELBO().estimate(vae.model, with_factor(vae), x).loss
    assert float(loss.detach()) == pytest.approx(-float(truth.log_likelihood(x).sum()) + 7 * FACTOR)
    with pyro.get_param_store().scope():
        expected = pyro.infer.Trace_ELBO().differentiable_loss(vae.model, with_factor(vae), x)
    torch.testing.assert_close(loss, expected)


def test_a_hidden_factor_is_no_factor():
    truth = LinearGaussian(latent=2, observed=D)
    vae, x = truth.vae(), truth.data(7)
    hidden = poutine.block(with_factor(vae), hide=["penalty"])
    assert Trace_ELBO().estimate(vae.model, hidden, x).loss.isfinite()
