"""Guides that are programs: one row of parameters per datum, improved by SVI, or the posterior
itself."""

import pyro
import pytest
import torch
from families import REAL, Counting, inputs
from linear_gaussian import LinearGaussian
from torch import nn

from pyro_vae import (
    SVI,
    VAE,
    Bernoulli,
    DiagonalNormal,
    StandardNormal,
    Trace_ELBO,
    log_likelihood,
    mlp,
)
from pyro_vae.families.full_rank import FullRankNormal
from pyro_vae.inference.nuts import posterior_draws
from pyro_vae.inference.semi_amortised import SemiAmortised
from pyro_vae.models.per_datum import PerDatumVAE
from pyro_vae.objectives.doubly_reparameterised import STL, DReG
from pyro_vae.objectives.importance_weighted import IWAE
from pyro_vae.programs.isolation import isolated, looking
from pyro_vae.programs.modules import modules_of
from pyro_vae.programs.pair import Pair


def gap(truth, vae, guide, x, *args) -> float:
    """log p(x) - ELBO per datum, of 200 draws."""
    with looking(modules_of(vae.model, guide)):
        return float(
            (
                truth.log_likelihood(x).sum()
                - Trace_ELBO(200).estimate(vae.model, guide, x, *args).elbo
            )
            / len(x)
        )


def test_per_datum_guide_finds_every_posterior():
    torch.manual_seed(0)
    truth = LinearGaussian(latent=2, observed=4)
    x = truth.data(30)
    table = nn.Embedding(30, FullRankNormal.outputs(2), dtype=torch.float64)
    nn.init.zeros_(table.weight)
    vae = PerDatumVAE(
        truth.vae().prior, truth.decoder().requires_grad_(False), FullRankNormal(table)
    )
    svi = SVI(vae.model, vae.guide, torch.optim.Adam(table.parameters(), 0.05), STL(4))
    for step in range(300):
        rows = torch.randperm(30)[:15] if step % 2 else torch.arange(30)
        svi.step(x[rows], rows)
    assert gap(truth, vae, vae.guide, x, torch.arange(30)) < 1e-2
    rows = torch.tensor([7, 3])
    torch.testing.assert_close(
        vae.encoder(rows).mean, truth.posterior(x[rows]).mean, atol=0.02, rtol=0
    )
    estimate = log_likelihood(vae.model, vae.guide, x, torch.arange(30), num_samples=50)
    torch.testing.assert_close(estimate, truth.log_likelihood(x), atol=0.05, rtol=0)


class Blinkered(nn.Module):
    """An encoder that sees half of x: a deliberately weak one."""

    def __init__(self, truth, outputs: int):
        super().__init__()
        self.net = nn.Linear(truth.observed // 2, outputs, dtype=torch.float64)

    def forward(self, x):
        return self.net(x[..., : x.shape[-1] // 2])


def test_semi_amortised_closes_most_of_the_amortisation_gap():
    """Against the best that its family can do, known in closed form."""
    truth = LinearGaussian()
    x = truth.data(100)
    precision = torch.linalg.inv(truth.posterior_cov)
    best = 0.5 * float(precision.diagonal().log().sum() - torch.logdet(precision))
    gaps = {}
    for steps in (0, 8):
        torch.manual_seed(0)
        vae = truth.vae(DiagonalNormal(Blinkered(truth, 8))).requires_grad_(False)
        vae.encoder.requires_grad_(True)
        guide = (
            SemiAmortised(
                vae.model, vae.encoder.net, DiagonalNormal(nn.Identity()), steps=steps, rate=0.02
            )
            if steps
            else vae.guide
        )
        trained = dict.fromkeys((*vae.encoder.parameters(), *(guide.parameters() if steps else ())))
        svi = SVI(vae.model, guide, torch.optim.Adam(trained, 0.03), Trace_ELBO())
        for _ in range(100):
            svi.step(x)
        gaps[steps] = gap(truth, vae, guide, x) - best
    assert gaps[0] > 1
    assert -0.1 < gaps[8] < 0.3 * gaps[0]


def semi_amortised(num_particles: int = 2):
    torch.manual_seed(0)
    vae = VAE(
        StandardNormal(3), Bernoulli(mlp(3, 8, 5)), DiagonalNormal(Counting(mlp(5, 8, 6)))
    ).double()
    guide = SemiAmortised(
        vae.model,
        vae.encoder.net,
        DiagonalNormal(nn.Identity()),
        steps=3,
        num_particles=num_particles,
    ).double()
    return vae, guide, (inputs(7, 5) > 0).double()


@pytest.mark.parametrize(
    "objective", [Trace_ELBO(), Trace_ELBO(4), IWAE(4)], ids=["one", "four", "iwae"]
)
def test_semi_amortised_guide_is_a_guide(objective):
    vae, guide, x = semi_amortised()
    stored = set(pyro.get_param_store().keys())
    pair = Pair(vae.model, guide)
    with pair.isolated(validate=True, strict=True):
        pair.structure(((x,), {}))
        vae.encoder.net.calls = vae.encoder.net.rows = 0
        objective.score(pair, (x,), {}).loss.backward()
    assert (vae.encoder.net.calls, vae.encoder.net.rows) == (1, 7)
    assert all(p.grad.abs().sum() > 0 for p in (*vae.parameters(), guide.log_rate))
    assert set(pyro.get_param_store().keys()) == stored
    assert log_likelihood(vae.model, guide, x, num_samples=10).shape == (7,)


def test_gradients_pass_through_the_steps_exactly():
    """Against finite differences of the loss, with the random numbers held."""
    vae, guide, x = semi_amortised()

    def loss():
        torch.manual_seed(1)
        with isolated(modules_of(vae.model, guide), validate=False):
            return Trace_ELBO().estimate(vae.model, guide, x).loss

    loss().backward()
    for parameter in (guide.log_rate, vae.encoder.net.net[2].bias, vae.decoder.net[0].bias):
        for i in range(2):
            with torch.no_grad():
                difference = 0.0
                for sign in (1, -1):
                    parameter[i] += sign * 1e-5
                    difference += sign * float(loss())
                    parameter[i] -= sign * 1e-5
            assert float(parameter.grad[i]) == pytest.approx(difference / 2e-5, rel=1e-4, abs=1e-6)


def test_semi_amortised_refuses_gradients_that_need_it_to_stand_still():
    vae, guide, x = semi_amortised()
    with (
        isolated(modules_of(vae.model, guide), validate=True),
        pytest.raises(ValueError, match="deterministic given its draws"),
    ):
        DReG(3).estimate(vae.model, guide, x)


def test_posterior_draws_are_the_posterior():
    truth = LinearGaussian(latent=2, observed=4, noise=1.0)
    x, vae = truth.data(2), truth.vae()
    torch.manual_seed(0)
    stored = set(pyro.get_param_store().keys())
    z = posterior_draws(vae.model, x, num_samples=200, warmup_steps=60)["z"]
    assert z.shape == (200, 2, 2)
    posterior = truth.posterior(x)
    spread = truth.posterior_cov.diagonal().sqrt()
    assert ((z.mean(0) - posterior.mean).abs() < 6 * spread / 200**0.5).all()
    assert ((z.std(0) / spread - 1).abs() < 0.25).all()
    assert set(pyro.get_param_store().keys()) == stored


def test_any_family_serves_per_datum():
    for name, make in REAL.items():
        torch.manual_seed(0)
        family = make(5, 3)
        family.net = nn.Embedding(10, family.net[-1].out_features)
        vae = PerDatumVAE(StandardNormal(3), Bernoulli(mlp(3, 8, 5)), family)
        loss = (
            Trace_ELBO(2)
            .estimate(vae.model, vae.guide, torch.ones(4, 5), torch.tensor([3, 1, 9, 0]))
            .loss
        )
        assert loss.isfinite(), name


ERRORS = {
    "steps": (
        lambda: SemiAmortised(None, nn.Identity(), DiagonalNormal(nn.Identity()), steps=0),
        "expected steps of at least 1",
    ),
    "rate": (
        lambda: SemiAmortised(None, nn.Identity(), DiagonalNormal(nn.Identity()), rate=0.0),
        "a rate greater than 0, got 0.0",
    ),
    "draws": (lambda: posterior_draws(lambda: None, num_samples=0), "at least 1, got 0"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name):
    call, message = ERRORS[name]
    with pytest.raises(ValueError, match="expected") as error:
        call()
    assert message in str(error.value)
