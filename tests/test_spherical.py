"""Densities on spheres against scipy and quadrature, in 2, 3, 10 and 50 dimensions."""

import math

import pytest
import scipy.special
import scipy.stats
import torch
import torch.nn.functional as F
from families import SPHERICAL, inputs
from torch import nn
from torch.distributions import kl_divergence

from pyro_vae import SVI, VAE, Bernoulli, Trace_ELBO, TraceMeanField_ELBO, mlp
from pyro_vae.families.bessel import bessel_ratio, log_bessel
from pyro_vae.families.power_spherical import PowerSphericalDistribution
from pyro_vae.families.spherical import UniformSphere, log_area
from pyro_vae.families.von_mises_fisher import VonMisesFisher, VonMisesFisherDistribution
from pyro_vae.programs.isolation import looking

LOSSES = (Trace_ELBO(), TraceMeanField_ELBO())
DISTRIBUTIONS = {
    "power spherical": PowerSphericalDistribution,
    "von mises-fisher": VonMisesFisherDistribution,
}
dims = pytest.mark.parametrize("dim", [2, 3, 10])
families = pytest.mark.parametrize("family", DISTRIBUTIONS.values(), ids=DISTRIBUTIONS)
concentrations = pytest.mark.parametrize("kappa", [0.1, 3.0, 60.0])


def about(family, dim: int, kappa: float):
    mu = F.normalize(inputs(dim), dim=0)
    return family(mu, torch.tensor(kappa, dtype=torch.float64))


def integral(q, dim: int, f):
    """int f(t) q(z) dz over the sphere, t = mu'z, by quadrature in the angle a.

    dz = area(S^(D-2)) sin^(D-2)(a) da
    """
    angle = (torch.arange(20_000, dtype=torch.float64) + 0.5) * math.pi / 20_000
    other = F.normalize(
        inputs(dim, seed=7) - (inputs(dim, seed=7) @ q.direction).detach() * q.direction.detach(),
        dim=0,
    )
    z = torch.cos(angle)[:, None] * q.direction.detach() + torch.sin(angle)[:, None] * other
    shell = math.log(2) if dim == 2 else log_area(dim - 1)
    density = (q.log_prob(z) + (dim - 2) * torch.sin(angle).log() + shell).exp()
    return (f(torch.cos(angle)) * density).sum() * math.pi / 20_000


@families
@dims
@concentrations
def test_integrates_to_one(family, dim, kappa):
    q = about(family, dim, kappa)
    assert float(integral(q, dim, torch.ones_like)) == pytest.approx(1, abs=1e-6)
    torch.testing.assert_close(
        integral(q, dim, lambda t: t), q.mean @ q.direction, atol=1e-6, rtol=0
    )


@families
@dims
@concentrations
def test_draws_follow_the_density(family, dim, kappa):
    """The cosine to the mean by a Kolmogorov-Smirnov test; the rest of z has mean zero."""
    torch.manual_seed(0)
    q = about(family, dim, kappa)
    z = q.sample((4000,))
    torch.testing.assert_close(z.norm(dim=-1), torch.ones(4000, dtype=torch.float64))
    t = z @ q.direction
    cosines = torch.linspace(-1, 1, 60, dtype=torch.float64)
    cdf = [float(integral(q, dim, lambda s, c=c: (s <= c).double())) for c in cosines]
    empirical = (t[:, None] <= cosines).double().mean(0)
    assert (empirical - torch.tensor(cdf)).abs().max() < 1.95 / 4000**0.5 + 2e-3
    rest = z - t[:, None] * q.direction
    assert (rest.mean(0).abs() < 4.5 * rest.std(0) / 4000**0.5 + 1e-12).all()


@families
@dims
@concentrations
def test_gradients_match_quadrature(family, dim, kappa):
    """Gradients of E[c'z + (c'z)^2]: draws against moments of t, within 4.5 standard errors."""
    raw = torch.cat([inputs(dim), torch.tensor([math.log(math.expm1(kappa))], dtype=torch.float64)])
    c = inputs(dim, seed=9)

    def make(raw):
        return family(F.normalize(raw[..., :-1], dim=-1), F.softplus(raw[..., -1]))

    leaf = raw.clone().requires_grad_()
    q = make(leaf)
    first, second = (
        integral(family(q.direction.detach(), q.concentration), dim, lambda t, k=k: t**k)
        for k in (1, 2)
    )
    along = c @ q.direction
    across = (1 - second) / (dim - 1)
    exact = first * along + second * along**2 + across * (c @ c - along**2)
    (gradient,) = torch.autograd.grad(exact, leaf)
    torch.manual_seed(0)
    rows = raw.expand(40_000, -1).clone().requires_grad_()
    projection = make(rows).rsample() @ c
    (sampled,) = torch.autograd.grad((projection + projection.square()).sum(), rows)
    error = sampled.std(0) / 40_000**0.5
    assert ((sampled.mean(0) - gradient).abs() < 4.5 * error + 1e-6).all()


@pytest.mark.parametrize("dim", [2, 3, 10, 50])
def test_von_mises_fisher_matches_scipy(dim):
    mu = F.normalize(inputs(dim), dim=0)
    z = F.normalize(inputs(20, dim, seed=2), dim=-1)
    for kappa in (0.05, 1.0, 30.0, 500.0):
        q = VonMisesFisherDistribution(mu, torch.tensor(kappa, dtype=torch.float64))
        trusted = torch.from_numpy(scipy.stats.vonmises_fisher(mu.numpy(), kappa).logpdf(z.numpy()))
        torch.testing.assert_close(q.log_prob(z), trusted, atol=1e-6, rtol=1e-6)
        drawn = q.rsample((10,))
        torch.testing.assert_close(drawn.norm(dim=-1), torch.ones(10, dtype=torch.float64))


def test_bessel_functions_match_scipy():
    x = torch.logspace(-2, 4, 40, dtype=torch.float64)
    for order in (0, 0.5, 1, 4, 24, 63.5):
        trusted = scipy.special.ive([order, order + 1], x.numpy()[:, None])
        keep = torch.from_numpy(trusted[:, 1] > 1e-300)
        value = torch.from_numpy(trusted)[keep]
        torch.testing.assert_close(log_bessel(order, x[keep]), value[:, 0].log(), atol=2e-7, rtol=0)
        torch.testing.assert_close(
            bessel_ratio(order, x[keep]), value[:, 1] / value[:, 0], atol=0, rtol=1e-7
        )


@families
def test_kl_to_the_uniform(family):
    torch.manual_seed(0)
    q = about(family, 4, 5.0)
    z = q.sample((50_000,))
    p = UniformSphere(4).double()()
    difference = q.log_prob(z) - p.log_prob(z)
    assert (
        abs(float(difference.mean() - kl_divergence(q, p)))
        < 4 * float(difference.std()) / 50_000**0.5
    )


@families
@pytest.mark.parametrize("dim", [2, 3, 50])
def test_single_precision_at_high_concentration(family, dim):
    mu = F.normalize(inputs(dim).float(), dim=0).expand(5000, -1).clone().requires_grad_()
    kappa = torch.full((5000,), 2000.0).requires_grad_()
    q = family(mu, kappa)
    z = q.rsample()
    q.log_prob(z).sum().backward()
    assert q.support.check(z.detach()).all()
    assert mu.grad.isfinite().all()
    assert kappa.grad.isfinite().all()


@pytest.mark.parametrize("name", SPHERICAL)
def test_trains_with_the_analytic_kl(name):
    torch.manual_seed(0)
    vae = VAE(UniformSphere(3), Bernoulli(mlp(3, 8, 5)), SPHERICAL[name](5, 3))
    x = (inputs(20, 5) > 0).float()
    svi = SVI(vae.model, vae.guide, torch.optim.Adam(vae.parameters(), 0.05), TraceMeanField_ELBO())
    before = float(svi.step(x))
    for _ in range(50):
        svi.step(x)
    assert float(svi.step(x)) < before - 1
    with looking([vae]):
        sampled, analytic = (
            torch.stack([loss.estimate(vae.model, vae.guide, x).loss for _ in range(80)])
            for loss in LOSSES
        )
    error = (sampled.var() + analytic.var()).sqrt() / 80**0.5
    assert (sampled.mean() - analytic.mean()).abs() < 4 * error


def test_a_sphere_needs_two_dimensions():
    with pytest.raises(ValueError, match="sphere in at least 2 dimensions, got 1"):
        UniformSphere(1)
    with pytest.raises(ValueError, match="sphere in at least 2 dimensions, got 1"):
        VonMisesFisher(nn.Identity())(torch.ones(3, 2))
