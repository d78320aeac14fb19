"""Faults that an audit found in what is called a density, and in what needs one."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from sentences import refused
from torch import nn

from pyro_vae import (
    SVI,
    VAE,
    Bernoulli,
    DiagonalNormal,
    StandardNormal,
    TraceMeanField_ELBO,
    log_likelihood,
    mlp,
)
from pyro_vae import log_weights as weights_of
from pyro_vae.evaluation.ais import AIS
from pyro_vae.evaluation.anomaly import likelihood_regret, surprise
from pyro_vae.evaluation.report import evaluate
from pyro_vae.evaluation.suboptimality import LocalFit, gaps
from pyro_vae.families.categorical import GumbelSoftmax, OneHotCategorical, UniformOneHot
from pyro_vae.families.delta import Delta
from pyro_vae.families.mixture import ImplicitMixture
from pyro_vae.inference.semi_amortised import SemiAmortised
from pyro_vae.objectives.free_bits import FreeBits
from pyro_vae.training.loop import fit

D = 6


def pixels(rows=7):
    return (torch.rand(rows, D, generator=torch.Generator().manual_seed(0)) > 0.5).double()


def plain(encoder=DiagonalNormal, outputs=4):
    torch.manual_seed(0)
    return VAE(StandardNormal(2), Bernoulli(mlp(2, 8, D)), encoder(mlp(D, 8, outputs))).double()


# 3. Free bits


def test_free_bits_have_the_score_gradient_of_discrete_draws():
    """Without a floor the mean gradient is that of the sum over the classes, within 4.5 errors."""
    torch.manual_seed(0)
    vae = VAE(UniformOneHot(3), Bernoulli(mlp(3, 8, D)), OneHotCategorical(mlp(D, 8, 3))).double()
    x = pixels()
    parameters = list(vae.encoder.parameters())

    def gradient(loss):
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)])

    q = vae.encoder(x).probs
    log_p = vae.decoder(torch.eye(3).double()).log_prob(x.unsqueeze(1))
    exact = gradient(-(q * (log_p - q.log() - math.log(3))).sum())
    objective = FreeBits(0.0)
    draws = torch.stack(
        [gradient(objective.estimate(vae.model, vae.guide, x).loss) for _ in range(600)]
    )
    error = draws.std(0) / 600**0.5
    assert ((draws.mean(0) - exact).abs() <= 4.5 * error + 1e-9).all()
    assert (exact.abs() > 3 * error).any()


def test_free_bits_refuse_another_order_of_sites():
    """KL(q(z1 | x) || p(z1 | z2)) with z2 ~ q(z2 | z1) is no KL of a joint."""
    q1, q2, p1, decoder = (nn.Linear(i, o).double() for i, o in [(D, 4), (2, 4), (2, 4), (2, D)])

    def model(x):
        with pyro.plate("data", len(x)):
            z2 = pyro.sample("z2", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            z1 = pyro.sample("z1", DiagonalNormal(p1)(z2))
            pyro.sample("x", Bernoulli(decoder)(z1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            z1 = pyro.sample("z1", DiagonalNormal(q1)(x))
            pyro.sample("z2", DiagonalNormal(q2)(z1))

    with refused():
        FreeBits().estimate(model, guide, pixels())


# 4. A point has no density

REPORTS = {
    "log_weights": lambda *pair: weights_of(*pair, num_samples=5),
    "log_likelihood": lambda *pair: log_likelihood(*pair, num_samples=5),
    "evaluate": lambda *pair: evaluate(*pair, num_samples=5),
    "annealed": lambda *pair: AIS(4, 5).log_weights(*pair),
    "sandwich": lambda *pair: AIS(4, 5).sandwich(*pair),
    "gaps": lambda *pair: gaps(*pair, fit=LocalFit(num_steps=2), num_samples=5),
    "local fit": lambda *pair: LocalFit(num_steps=2).elbo(*pair),
    "surprise": lambda *pair: surprise(*pair, num_samples=5),
    "regret": lambda *pair: likelihood_regret(*pair, fit=LocalFit(num_steps=2), num_samples=5),
}


@pytest.mark.parametrize("name", REPORTS)
def test_a_point_reports_no_log_likelihood(name):
    vae = plain(Delta, 2)
    with refused():
        REPORTS[name](vae.model, vae.guide, pixels())


@pytest.mark.parametrize("name", ["log_likelihood", "evaluate"])
def test_a_masked_or_batched_point_is_a_point(name):
    vae = plain()

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Delta(vae.encoder(x).mean).to_event(1).mask(True))

    with refused():
        REPORTS[name](vae.model, guide, pixels())


def test_a_point_that_states_its_density_is_a_draw():
    """A draw made by hand, its density stated; or one that is a function of an auxiliary draw."""
    vae = plain()

    def by_hand(x):
        q = vae.encoder(x)
        z = q.rsample()
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Delta(z, log_density=q.log_prob(z), event_dim=1))

    def auxiliary(x):
        with pyro.plate("data", len(x)):
            u = pyro.sample("u", vae.encoder(x), infer={"is_auxiliary": True})
            pyro.sample("z", dist.Delta(u, event_dim=1))

    expected = log_likelihood(vae.model, vae.guide, pixels(), num_samples=20_000)
    torch.testing.assert_close(
        log_likelihood(vae.model, auxiliary, pixels(), num_samples=20_000),
        expected,
        atol=0.03,
        rtol=0,
    )
    assert weights_of(vae.model, by_hand, pixels(), num_samples=1).isfinite().all()


# 8. Relaxed categoricals


class Rows:
    def __init__(self, x):
        self.x = x

    def __len__(self):
        return len(self.x)

    def batch(self, indices):
        return self.x[indices]


def relaxed(hard):
    torch.manual_seed(0)
    guide = GumbelSoftmax(nn.Linear(D, 3), 0.7, hard)
    vae = VAE(UniformOneHot(3), Bernoulli(nn.Linear(3, D)), guide).double()
    return vae, VAE(vae.prior, vae.decoder, OneHotCategorical(vae.encoder.net))


@pytest.mark.parametrize("hard", [False, True])
def test_a_relaxed_guide_is_evaluated_as_the_categorical_that_it_relaxes(hard):
    vae, discrete = relaxed(hard)
    each = torch.eye(3, dtype=torch.float64).unsqueeze(1).expand(-1, 7, -1)
    truth = (
        (vae.prior().log_prob(each) + vae.decoder(each).log_prob(pixels())).logsumexp(0).detach()
    )
    result = evaluate(vae.model, vae.guide, pixels(), num_samples=5000)
    log_q = discrete.encoder(pixels()).log_prob(each)
    log_w = vae.prior().log_prob(each) + vae.decoder(each).log_prob(pixels()) - log_q - truth
    error = (((log_q + 2 * log_w).exp().sum(0) - 1) / 5000).sqrt().detach()
    assert ((result.log_px - truth).abs() < 4 * error).all()
    expected = evaluate(discrete.model, discrete.guide, pixels(), num_samples=5000)
    torch.testing.assert_close(result.elbo, expected.elbo, atol=0.05, rtol=0)


@pytest.mark.parametrize("hard", [False, True])
def test_a_relaxed_guide_is_fitted_with_validation(hard):
    vae, _ = relaxed(hard)
    svi = SVI(vae.model, vae.guide, torch.optim.Adam(vae.parameters()), TraceMeanField_ELBO())
    records = list(fit(svi, Rows(pixels(20)), Rows(pixels(9)), epochs=2, progress=False))
    assert all(math.isfinite(record.validation_elbo) for record in records)
    assert vae.encoder.training


# 10. Annealed importance sampling from a guide that draws anew inside


def test_annealing_refuses_a_start_whose_density_is_random():
    vae = plain()
    guide = SemiAmortised(
        vae.model, vae.encoder.net, DiagonalNormal(nn.Identity()), steps=2, rate=0.5
    ).double()
    with refused():
        AIS(4, 5).log_weights(vae.model, guide, pixels())
    assert AIS(4, 5, start="prior").log_weights(vae.model, guide, pixels()).isfinite().all()


# 11. Mixtures whose components lie apart


def two_modes():
    """A guide of two narrow components far apart, on one datum; log p(x, z) differs between the
    modes."""
    logits = torch.tensor([[0.3, -0.2]], dtype=torch.float64, requires_grad=True)
    loc = torch.tensor([[[-4.0], [4.0]]], dtype=torch.float64)
    scale = torch.full((1, 2, 1), 0.3, dtype=torch.float64)

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(1), 3.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 2.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample(
                "z",
                ImplicitMixture(
                    dist.Categorical(logits=logits), dist.Normal(loc, scale).to_event(1)
                ),
            )

    return model, guide, logits, loc, scale


def exact_mixture_gradient(logits, loc, scale, x):
    """d ELBO / d logits by quadrature over both modes."""
    normal = torch.distributions.Normal
    z = torch.linspace(-7, 7, 20_001, dtype=torch.float64)
    q = (
        logits.log_softmax(-1)[0] + normal(loc[0, :, 0], scale[0, :, 0]).log_prob(z.unsqueeze(-1))
    ).logsumexp(-1)
    log_joint = normal(0.0, 3.0).log_prob(z) + normal(z, 2.0).log_prob(x[0])
    elbo = (q.exp() * (log_joint - q)).sum() * (z[1] - z[0])
    return torch.autograd.grad(elbo, logits)[0]


def test_strata_give_the_gradient_of_separated_components():
    from pyro_vae.objectives.stratified import Stratified_ELBO

    model, guide, logits, loc, scale = two_modes()
    x = torch.tensor([[1.0]], dtype=torch.float64)
    truth = exact_mixture_gradient(logits, loc, scale, x)
    torch.manual_seed(0)
    sampled = torch.stack(
        [
            torch.autograd.grad(-Stratified_ELBO().estimate(model, guide, x).loss, logits)[0]
            for _ in range(400)
        ]
    )
    error = sampled.std(0) / 400**0.5
    assert ((sampled.mean(0) - truth).abs() < 4 * error).all()
    assert (error < 0.05 * truth.abs()).all()
