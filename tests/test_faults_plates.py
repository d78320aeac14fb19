"""Faults that an audit found in how plates are read: each against Pyro's ELBO or by hand."""

import math

import pyro
import pyro.distributions as dist
import pyro.infer
import pytest
import torch
from pyro.nn import PyroModule, pyro_method
from sentences import refused, result_or_refusal
from torch import nn

from pyro_vae import (
    SVI,
    VAE,
    Bernoulli,
    DiagonalNormal,
    StandardNormal,
    Trace_ELBO,
    TraceMeanField_ELBO,
    log_likelihood,
    mlp,
)
from pyro_vae.evaluation.latents import latent_means
from pyro_vae.evaluation.report import evaluate
from pyro_vae.objectives.free_bits import FreeBits
from pyro_vae.objectives.importance_weighted import IWAE
from pyro_vae.training.loop import fit

B, F = 7, 5


def data(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def ours(objective, pair, x):
    pair.zero_grad()
    torch.manual_seed(1)
    estimate = objective.estimate(pair.model, pair.guide, x)
    estimate.loss.backward()
    return estimate.loss, torch.cat([p.grad.flatten() for p in pair.parameters()])


def pyros(elbo, pair, x):
    pair.zero_grad()
    torch.manual_seed(1)
    with pyro.get_param_store().scope():
        loss = elbo.differentiable_loss(pair.model, pair.guide, x)
        loss.backward()
    return loss, torch.cat([p.grad.flatten() for p in pair.parameters()])


# 1. Sibling plates at one dimension


class Siblings(PyroModule):
    """Global means in a plate of their own beside the plate of the data, at the same dimension."""

    def __init__(self, size):
        super().__init__()
        self.size = size
        self.loc, self.gain = (
            nn.Parameter(data(size)),
            nn.Parameter(torch.tensor(0.4, dtype=torch.float64)),
        )

    @pyro_method
    def model(self, x):
        with pyro.plate("components", self.size):
            w = pyro.sample("w", dist.Normal(torch.zeros((), dtype=torch.float64), 1.0))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros((), dtype=torch.float64), 1.0))
            pyro.sample("x", dist.Normal(z + w.sum(-1, keepdim=True), 1.0), obs=x)

    @pyro_method
    def guide(self, x):
        with pyro.plate("components", self.size):
            pyro.sample("w", dist.Normal(self.loc, 0.5))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.gain * x, 0.7))


ELBOS = {
    "sampled": (Trace_ELBO, pyro.infer.Trace_ELBO),
    "analytic": (TraceMeanField_ELBO, pyro.infer.TraceMeanField_ELBO),
}


@pytest.mark.parametrize("size", [1, 2, B])
@pytest.mark.parametrize("num_particles", [1, 3])
@pytest.mark.parametrize("name", ELBOS)
def test_sibling_plates_are_two_plates(name, num_particles, size):
    (mine, theirs), pair, x = ELBOS[name], Siblings(size), data(B)
    trusted = theirs(num_particles)
    torch.testing.assert_close(ours(mine(num_particles), pair, x), pyros(trusted, pair, x))


@pytest.mark.parametrize("size", [1, 2, B])
def test_free_bits_of_sibling_plates(size):
    pair, x = Siblings(size), data(B)
    torch.testing.assert_close(
        ours(FreeBits(0.0), pair, x), pyros(pyro.infer.TraceMeanField_ELBO(), pair, x)
    )


@pytest.mark.parametrize("size", [1, B])
def test_no_log_likelihood_per_datum_beside_global_latents(size):
    pair = Siblings(size)
    with refused():
        log_likelihood(pair.model, pair.guide, data(B), num_samples=5)


# 2. The data plate is the outermost by nesting


class InnerAtTwo(PyroModule):
    """The data at -1, and inside them features at -2, with a latent for each; ``aside`` adds a
    deterministic site outside."""

    def __init__(self, aside=False):
        super().__init__()
        self.aside, self.gain = aside, nn.Parameter(torch.tensor(0.4, dtype=torch.float64))

    @pyro_method
    def model(self, x):
        if self.aside:
            pyro.deterministic("twice the gain", 2 * self.gain)
        with pyro.plate("data", x.shape[-1], dim=-1), pyro.plate("features", F, dim=-2):
            z = pyro.sample("z", dist.Normal(torch.zeros((), dtype=torch.float64), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    @pyro_method
    def guide(self, x):
        with pyro.plate("data", x.shape[-1], dim=-1), pyro.plate("features", F, dim=-2):
            pyro.sample("z", dist.Normal(self.gain * x, 0.9))


def iwae_by_hand(gain, x, K):
    torch.manual_seed(1)
    normal, q = torch.distributions.Normal, torch.distributions.Normal(gain * x, 0.9)
    z = torch.stack([q.rsample() for _ in range(K)])
    log_weight = (normal(0, 1).log_prob(z) + normal(z, 1).log_prob(x) - q.log_prob(z)).sum(-2)
    return -(log_weight.logsumexp(0) - math.log(K)).sum()


@pytest.mark.parametrize("aside", [False, True])
def test_the_data_plate_is_the_outermost_by_nesting(aside):
    pair, x = InnerAtTwo(aside), data(F, B)
    torch.manual_seed(1)
    loss = IWAE(20).estimate(pair.model, pair.guide, x).loss
    torch.testing.assert_close(loss, iwae_by_hand(pair.gain, x, 20))


def test_a_deterministic_site_moves_no_weight():
    """Outside the plate of the data, in the model or in the guide."""
    torch.manual_seed(0)
    vae = VAE(StandardNormal(2), Bernoulli(mlp(2, 8, F)), DiagonalNormal(mlp(F, 8, 4))).double()
    x = (data(B, F) > 0).double()

    def named(program):
        def run(x):
            pyro.deterministic(f"mean of x in {program.__name__}", x.mean())
            program(x)

        return run

    results = []
    for model, guide in [
        (vae.model, vae.guide),
        (named(vae.model), vae.guide),
        (named(vae.model), named(vae.guide)),
    ]:
        torch.manual_seed(1)
        loss = IWAE(5).estimate(model, guide, x).loss
        evaluation = evaluate(model, guide, x, num_samples=10)
        results.append((loss, evaluation.log_px, evaluation.bits_per_dimension))
    for other in results[1:]:
        torch.testing.assert_close(other, results[0])


# 5. Latents without an event dimension


class Scalar(PyroModule):
    """z is one number, q(z | x) the posterior: log p(x) = log N(x; 0, 2)."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(0.5, dtype=torch.float64))

    @pyro_method
    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    @pyro_method
    def guide(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.gain * x, 0.5**0.5))


class Rows:
    def __init__(self, x):
        self.x = x

    def __len__(self):
        return len(self.x)

    def batch(self, indices):
        return self.x[indices]


def test_scalar_latents_are_evaluated():
    pair, x = Scalar(), 2 * data(40)
    torch.testing.assert_close(
        latent_means(pair.guide, x), 0.5 * x.unsqueeze(-1), check_dtype=False
    )
    result = evaluate(pair.model, pair.guide, x, num_samples=10)
    torch.testing.assert_close(result.log_px, torch.distributions.Normal(0.0, 2**0.5).log_prob(x))
    assert result.active_units == 1


def test_scalar_latents_are_validated():
    pair, x = Scalar(), 2 * data(40)
    svi = SVI(pair.model, pair.guide, torch.optim.Adam(pair.parameters()), loss=Trace_ELBO())
    (record,) = fit(svi, Rows(x), Rows(x), epochs=1, progress=False)
    assert record.active_units == 1


def test_active_units_count_dimensions_and_not_data():
    """With an inner plate at -2 the data lie on the right."""
    pair, x = InnerAtTwo(), 2 * data(F, 60)

    def transposed(program):
        return lambda x: program(x.T)

    result = evaluate(
        transposed(pair.model), transposed(pair.guide), x.T, num_samples=5, kl_draws=0
    )
    assert result.active_units == F
    means = latent_means(transposed(pair.guide), x.T)
    torch.testing.assert_close(means, pair.gain.detach() * x.T)


# 6. Pairs that subsample by themselves


@pytest.mark.parametrize("size", [5, 14])
def test_a_plate_that_subsamples_has_no_log_likelihood_of_all(size):
    def model(x):
        with pyro.plate("data", len(x), subsample_size=min(size, len(x))) as rows:
            z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x[rows])

    def guide(x):
        with pyro.plate("data", len(x), subsample_size=min(size, len(x))) as rows:
            pyro.sample("z", dist.Normal(0.5 * x[rows], 0.7))

    for number in (log_likelihood, evaluate):
        result = result_or_refusal(
            lambda number=number: number(model, guide, data(20), num_samples=10)
        )
        assert result is None or len(getattr(result, "log_px", result)) == 20
