"""Densities, draws and gradients of posterior families and priors against quadrature and torch."""

import pytest
import torch
from families import PRIORS, REAL, build, inputs, pixels
from torch import nn

from pyro_vae import VAE, Bernoulli, DiagonalNormal, Trace_ELBO, log_likelihood, mlp
from pyro_vae.families.full_rank import FullRankNormal
from pyro_vae.families.low_rank import LowRankNormal
from pyro_vae.families.mixture import MixtureOfNormals
from pyro_vae.families.vamp import VampPrior
from pyro_vae.objectives.importance_weighted import IWAE
from pyro_vae.programs.isolation import isolated

reals = pytest.mark.parametrize("name", REAL)


def grid(half_width: float = 12.0, points: int = 400, center=0.0):
    """The midpoints of a grid of squares of the plane (points^2, 2) and the area of each."""
    side = 2 * half_width / points
    axis = torch.arange(points, dtype=torch.float64) * side + (side / 2 - half_width)
    return torch.cartesian_prod(axis, axis) + center, side**2


def waves(z):
    """Twelve smooth test functions of points of the plane, (..., 12)."""
    return torch.cat(
        [torch.sin(z @ inputs(2, 6, seed=11) + 0.5), torch.tanh(z @ inputs(2, 6, seed=12))], -1
    )


@reals
def test_integrates_to_one(name):
    points, area = grid()
    q = build(name, dim=2)(inputs(3, 5))
    with torch.no_grad():
        total = q.log_prob(points.unsqueeze(1)).exp().sum(0) * area
    torch.testing.assert_close(total, torch.ones(3, dtype=torch.float64), atol=1e-3, rtol=0)


@reals
def test_draws_and_their_gradients_follow_the_density(name):
    """E_q[f(z)] and its gradient by each output: draws against quadrature, 4.5 standard errors."""
    torch.manual_seed(0)
    family = build(name, dim=2)
    outputs = family.net(inputs(5)).detach().requires_grad_()
    family.net = nn.Identity()
    z = family(outputs.expand(20_000, -1)).sample()
    # the kink of the Laplace density lies between two squares
    center = outputs[:2].detach() if name == "laplace" else z.mean(0)
    points, area = grid(1.4 * float((z - center).abs().max()), 400, center)
    exact = (waves(points) * family(outputs).log_prob(points).exp().unsqueeze(-1)).sum(0) * area
    difference = (waves(z) - exact).detach()
    assert (difference.mean(0).abs() < 4.5 * difference.std(0) / 20_000**0.5).all()
    rows = outputs.detach().expand(20_000, -1).clone().requires_grad_()
    # the gradient of a spline's density jumps at its knots, which no grid follows
    resolution = 1e-2 if name == "spline" else 2e-4
    for k in (0, 3, 8):
        (gradient,) = torch.autograd.grad(exact[k], outputs, retain_graph=True)
        torch.manual_seed(k)
        (sampled,) = torch.autograd.grad(waves(family(rows).rsample())[:, k].sum(), rows)
        error = sampled.std(0) / 20_000**0.5
        assert ((sampled.mean(0) - gradient).abs() < 4.5 * error + resolution).all()


@pytest.mark.parametrize("family", [LowRankNormal, FullRankNormal])
def test_normals_match_torch(family):
    torch.manual_seed(0)
    q = family(nn.Linear(5, family.outputs(4)).double())(inputs(6, 5))
    covariance = (
        q.factor @ q.factor.mT + torch.diag_embed(q.scale.square())
        if family is LowRankNormal
        else q.covariance_matrix
    )
    trusted = torch.distributions.MultivariateNormal(q.mean, covariance)
    z = q.sample((3,))
    torch.testing.assert_close(q.log_prob(z), trusted.log_prob(z))
    torch.testing.assert_close(q.variance, trusted.variance)
    particles = q.expand((20_000, 6))
    z = particles.rsample()
    torch.testing.assert_close(particles.log_prob(z), trusted.log_prob(z))
    white = torch.linalg.solve_triangular(
        torch.linalg.cholesky(covariance), (z - q.mean).unsqueeze(-1), upper=False
    )
    spread = (white @ white.mT).mean(0) - torch.eye(4)
    assert spread.abs().max() < 5 * 2**0.5 / 20_000**0.5  # five standard errors of a variance


def test_mixture_gradients_survive_a_gap(monkeypatch):
    """Two modes 12 standard deviations apart: in the tails float32 gradients match float64."""
    raw = torch.tensor([0.3, -0.2, -6.0, 1.0, 6.0, -1.0, -1.0, 0.0, 0.0, -1.0], dtype=torch.float64)
    draws = 0.8 * inputs(2000, 2) + torch.tensor([6.0, 0.0]) * inputs(2000, 1, seed=2).sign()
    grads = []
    for dtype in (torch.float32, torch.float64):
        rows = raw.to(dtype).expand(2000, -1).clone().requires_grad_()
        q = MixtureOfNormals(nn.Identity(), 2)(rows)
        monkeypatch.setattr(q, "sample", lambda shape, dtype=dtype: draws.to(dtype))
        q.rsample().sum().backward()
        grads.append(rows.grad.double())
    assert grads[0].isfinite().all()
    torch.testing.assert_close(grads[0], grads[1], atol=1e-3, rtol=1e-2)


@pytest.mark.parametrize("name", PRIORS)
def test_priors(name):
    torch.manual_seed(0)
    prior = PRIORS[name](2).double()
    points, area = grid(20.0, 500)
    with torch.no_grad():
        density = prior().log_prob(points).exp()
        torch.testing.assert_close(
            density.sum() * area, torch.ones((), dtype=torch.float64), atol=1e-3, rtol=0
        )
        difference = (
            waves(prior().sample((20_000,))) - (waves(points) * density.unsqueeze(-1)).sum(0) * area
        )
    assert (difference.mean(0).abs() < 4.5 * difference.std(0) / 20_000**0.5).all()
    vae = VAE(prior, Bernoulli(mlp(2, 8, 5)), DiagonalNormal(mlp(5, 8, 4))).double()
    for loss in (Trace_ELBO(), IWAE(3)):
        vae.zero_grad()
        with isolated([], validate=True, strict=True):
            loss.estimate(vae.model, vae.guide, pixels()).loss.backward()
        assert [
            n for n, p in vae.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0
        ] == []
    assert vae.sample(3).shape == (3, 5)
    assert log_likelihood(vae.model, vae.guide, pixels(), num_samples=5).shape == (7,)


def test_vamp_prior_shares_the_guides_encoder():
    torch.manual_seed(0)
    encoder = FullRankNormal(mlp(5, 8, FullRankNormal.outputs(2)))
    vae = VAE(VampPrior(encoder, torch.rand(4, 5)), Bernoulli(mlp(2, 8, 5)), encoder)
    assert len(list(vae.parameters())) == 4 + 4 + 1
    z = torch.randn(6, 2)
    parts = encoder(vae.prior.pseudo_inputs())
    torch.testing.assert_close(
        vae.prior().log_prob(z),
        parts.log_prob(z.unsqueeze(1)).logsumexp(1) - torch.log(torch.tensor(4.0)),
    )
