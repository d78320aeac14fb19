"""Annealed importance sampling against closed forms, and the coordinates and simulations it runs
in."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from linear_gaussian import LinearGaussian
from programs import PER_DATUM
from pyro_examples import ExampleM2, ExampleVAE
from torch import Tensor

from pyro_vae.evaluation import estimators as weights
from pyro_vae.evaluation.ais import AIS, linear, sigmoidal
from pyro_vae.programs.pair import Pair
from pyro_vae.programs.simulation import simulate
from pyro_vae.programs.unconstrained import Unconstrained


@pytest.mark.parametrize(("start", "latent", "num_steps"), [("guide", 10, 150), ("prior", 1, 100)])
def test_bounds_sandwich_the_closed_form(start, latent, num_steps):
    """Means over 30 simulated data, standard errors below 0.03; the two bounds meet within 0.05
    nat."""
    torch.manual_seed(0)
    truth = LinearGaussian(latent=latent, observed=16 if latent == 10 else 2)
    vae = truth.vae(truth.wrong_encoder(shift=0.1, spread=1.3))
    ais = AIS(num_particles=16, num_steps=num_steps, num_leapfrog=5, start=start)
    bounds = ais.sandwich(vae.model, vae.guide, truth.data(30))
    log_px = truth.log_likelihood(bounds.args[0])
    error = float(weights.standard_error(bounds.forward).square().sum().sqrt()) / 30
    assert error < 0.03
    assert float((bounds.lower - log_px).mean()) < 3 * error
    assert float((bounds.upper - log_px).mean()) > -3 * error
    assert abs(float((bounds.upper - bounds.lower).mean())) < 0.05


def test_weights_are_unbiased_for_few_steps():
    """E[w] = p(x) however short the chain: 4000 chains of ten short steps."""
    torch.manual_seed(0)
    truth = LinearGaussian(latent=2, observed=3)
    vae, x = truth.vae(truth.wrong_encoder(shift=0.3, spread=1.5)), truth.data(3)
    log_weight = AIS(num_particles=4000, num_steps=10, num_leapfrog=2).log_weights(
        vae.model, vae.guide, x, chunk_chains=4000
    )
    error = weights.log_mean_exp(log_weight) - truth.log_likelihood(x)
    assert bool((error.abs() < 4 * weights.standard_error(log_weight)).all())
    assert bool((weights.standard_error(log_weight) < 0.05).all())


def test_closer_than_importance_sampling():
    """From a bad guide, with as many chains as there are samples."""
    torch.manual_seed(0)
    truth = LinearGaussian(latent=10, observed=16)
    vae, x = truth.vae(truth.wrong_encoder(shift=0.5, spread=1.0)), truth.data(5)
    plain = weights.log_mean_exp(
        AIS(num_particles=16, num_steps=1).log_weights(vae.model, vae.guide, x)
    )
    annealed = weights.log_mean_exp(
        AIS(num_particles=16, num_steps=60, num_leapfrog=5).log_weights(vae.model, vae.guide, x)
    )
    log_px = truth.log_likelihood(x)
    assert float((annealed - log_px).abs().mean()) < 0.2 * float((plain - log_px).abs().mean())


def test_one_step_is_importance_sampling():
    """With one temperature no transition comes before the weight."""
    truth = LinearGaussian()
    vae, x = truth.vae(), truth.data(5)
    log_weight = AIS(num_particles=3, num_steps=1).log_weights(vae.model, vae.guide, x)
    torch.testing.assert_close(log_weight, truth.log_likelihood(x).expand(3, -1))


def constrained_pair() -> tuple[LinearGaussian, object, object, Tensor]:
    """z in (0, 1) and a rate > 0: p(x) by quadrature over both."""

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Beta(2.0, 3.0))
            rate = pyro.sample("rate", dist.Gamma(2.0, 1.0))
            pyro.sample("x", dist.Normal(4 * z - rate, 0.5), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Beta(x.new_full((len(x),), 2.0), 2.0))
            pyro.sample("rate", dist.Gamma(x.new_full((len(x),), 2.0), 1.0))

    return model, guide


def test_bounded_latents_against_quadrature():
    torch.manual_seed(0)
    model, guide = constrained_pair()
    x = torch.tensor([-1.0, 1.5], dtype=torch.float64)
    z = torch.linspace(0.0005, 0.9995, 1000, dtype=torch.float64)[:, None]
    rate = torch.linspace(0.005, 19.995, 2000, dtype=torch.float64)
    joint = (
        dist.Normal(4 * z - rate, 0.5).log_prob(x.reshape(2, 1, 1))
        + dist.Beta(2.0, 3.0).log_prob(z)
        + dist.Gamma(2.0, 1.0).log_prob(rate)
    )
    log_px = joint.flatten(1).logsumexp(1) + torch.tensor(0.001 * 0.01, dtype=torch.float64).log()
    log_weight = AIS(num_particles=200, num_steps=20, num_leapfrog=5, start="prior").log_weights(
        model, guide, x
    )
    assert bool(
        (
            (weights.log_mean_exp(log_weight) - log_px).abs()
            < 4 * weights.standard_error(log_weight)
        ).all()
    )
    assert bool((weights.standard_error(log_weight) < 0.1).all())


@pytest.mark.parametrize("name", PER_DATUM)
def test_runs_on_every_pair_and_leaves_no_trace(name):
    p = PER_DATUM[name]()
    before = {key: value.clone() for key, value in p.module.state_dict().items()}
    out = AIS(num_particles=3, num_steps=4, num_leapfrog=2).sandwich(
        p.model, p.guide, *p.args, chunk_chains=6
    )
    rows = len(p.args[0])
    assert out.lower.shape == out.upper.shape == (rows,)
    assert out.forward.shape == (3, rows)
    assert bool(out.lower.isfinite().all() and out.upper.isfinite().all())
    assert all(parameter.grad is None for parameter in p.module.parameters())
    assert all(torch.equal(before[key], value) for key, value in p.module.state_dict().items())
    assert torch.is_grad_enabled()
    assert len(pyro.get_param_store()) == 0


@pytest.mark.parametrize("name", PER_DATUM)
def test_densities_of_coordinates_are_the_weights(name):
    """log p(x, z) - log q(z | x) in coordinates, at the guide's own draws, is the importance
    weight."""
    p = PER_DATUM[name]()
    pair = Pair(p.model, p.guide)
    with pair.looking():
        space = Unconstrained(pair, (p.args, {}))
        draw = pair.draw(p.args, {}, 5)
        u = space.unconstrain(draw.values)
        log_weight = sum(space.log_joint(u)) - space.log_guide(u)
        values, _ = space.constrain(u)
        torch.testing.assert_close(space.unconstrain(values), u)
        torch.testing.assert_close(log_weight, draw.log_weight)


def test_coordinates_carry_the_jacobian():
    model, guide = constrained_pair()
    x = torch.tensor([0.5], dtype=torch.float64)
    pair = Pair(model, guide)
    with pair.looking():
        space = Unconstrained(pair, ((x,), {}))
        axis = torch.linspace(-12, 12, 481, dtype=torch.float64)
        u = torch.cartesian_prod(axis, axis).unsqueeze(1)
        assert float(space.log_joint(u)[1].logsumexp(0).exp()) * 0.05**2 == pytest.approx(
            1, abs=1e-4
        )
        assert float(space.log_guide(u).logsumexp(0).exp()) * 0.05**2 == pytest.approx(1, abs=1e-4)


def test_simplices_lose_a_dimension():
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            weight = pyro.sample("weight", dist.Dirichlet(x.new_ones(len(x), 3)))
            pyro.sample("x", dist.Categorical(weight), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("weight", dist.Dirichlet(x.new_ones(len(x), 3)))

    torch.manual_seed(0)
    x = torch.tensor([0.0, 2.0])
    pair = Pair(model, guide)
    with pair.looking():
        u = Unconstrained(pair, ((x,), {})).draw_guide(4)
    assert u.shape == (4, 2, 2)
    log_weight = AIS(num_particles=200, num_steps=10, num_leapfrog=3).log_weights(model, guide, x)
    error = weights.log_mean_exp(log_weight) - torch.tensor(1 / 3).log()
    assert bool((error.abs() < 4 * weights.standard_error(log_weight)).all())


@pytest.mark.parametrize("schedule", [linear, sigmoidal])
def test_schedules_rise_from_nought_to_one(schedule):
    betas = schedule(100)
    assert betas[0] == 0
    assert betas[-1] == 1
    assert bool((betas.diff() > 0).all())
    torch.testing.assert_close(betas, 1 - betas.flip(0))


def test_simulation_replaces_what_is_observed():
    truth = LinearGaussian()
    vae = truth.vae()
    torch.manual_seed(0)
    simulation = simulate(vae.model, truth.data(20_000))
    x, z = simulation.args[0], simulation.latents["z"]
    assert float((x.T.cov() - truth.marginal_cov).abs().max()) < 0.05 * float(
        truth.marginal_cov.diagonal().max()
    )
    residual = x - z @ truth.W.T - truth.mu
    torch.testing.assert_close(
        residual.std(), torch.tensor(truth.noise, dtype=torch.float64), rtol=0.02, atol=0
    )


def test_simulation_finds_reshaped_and_named_arguments():
    vae, m2 = ExampleVAE().double(), ExampleM2().double()
    assert simulate(vae.model, vae.images()).args[0].shape == vae.images().shape
    out = simulate(m2.model, m2.images(), ys=m2.labels())
    assert out.kwargs["ys"].shape == (6, 3)
    assert out.latents.keys() == {"z"}
    assert simulate(m2.model, m2.images()).latents.keys() == {"z", "y"}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda m2, x: AIS(num_steps=0),
            "expected num_steps of at least 1, got 0",
        ),
        (
            lambda m2, x: AIS(start="posterior"),
            "expected start to be 'guide' or 'prior', got 'posterior'",
        ),
        (
            lambda m2, x: AIS().log_weights(m2.model, m2.guide, x),
            "expected continuous latents .* OneHotCategorical at site 'y'",
        ),
        (
            lambda m2, x: simulate(lambda x: m2.model(1 - x), x),
            "expected the model to observe one of its arguments as it is at site 'x', got other",
        ),
    ],
)
def test_errors(call, message):
    m2 = ExampleM2().double()
    with pytest.raises(ValueError, match=message):
        call(m2, m2.images())
    assert torch.is_grad_enabled()
