"""Every family: its contract as a conditional, its density and its gradients against quadrature."""

import pytest
import torch
from families import DENSITIES, FAMILIES, PRIORS, REAL, Counting, build, inputs, prior_for
from linear_gaussian import LinearGaussian
from torch import nn
from torch.distributions import kl_divergence
from torch.func import functional_call
from torch.fx.experimental.proxy_tensor import make_fx

from pyro_vae import (
    SVI,
    VAE,
    Bernoulli,
    DiagonalNormal,
    Trace_ELBO,
    TraceMeanField_ELBO,
    log_likelihood,
    mlp,
)
from pyro_vae.families.full_rank import FullRankNormal
from pyro_vae.families.low_rank import LowRankNormal
from pyro_vae.families.mixture import MixtureOfNormals
from pyro_vae.objectives.doubly_reparameterised import STL
from pyro_vae.objectives.importance_weighted import IWAE
from pyro_vae.programs.isolation import isolated, looking
from pyro_vae.programs.pair import Pair

families = pytest.mark.parametrize("name", FAMILIES)
densities = pytest.mark.parametrize("name", DENSITIES)
reals = pytest.mark.parametrize("name", REAL)


def vae_with(name: str, dim: int = 3) -> VAE:
    torch.manual_seed(0)
    encoder = FAMILIES[name](5, dim)
    encoder.net = Counting(encoder.net)
    return VAE(prior_for(name, dim), Bernoulli(mlp(dim, 8, 5)), encoder).double()


def pixels(rows: int = 7):
    return (inputs(rows, 5) > 0).double()


@families
def test_any_leading_dimensions(name):
    family = build(name)
    for leading in [(), (4,), (2, 4)]:
        q = family(inputs(*leading, 5))
        assert (q.batch_shape, q.event_shape) == (leading, (3,))
        z = q.rsample((6,))
        assert z.shape == (6, *leading, 3)
        assert q.log_prob(z).shape == (6, *leading)
        assert q.support.check(z).all()


@families
def test_rows_do_not_mix(name):
    family = build(name)
    x = inputs(4, 5)
    z = family(x).sample()
    rows = torch.stack([family(row).log_prob(value) for row, value in zip(x, z, strict=True)])
    if name != "delta":
        torch.testing.assert_close(family(x).log_prob(z), rows)
    assert (family(x).sample() == z).any() == (name == "delta")


@densities
def test_expands_as_a_plate_does(name):
    q = build(name)(inputs(4, 5))
    wide = q.expand((6, 4))
    z = wide.rsample()
    assert wide.batch_shape == (6, 4)
    assert z.shape == (6, 4, 3)
    torch.testing.assert_close(wide.log_prob(z), q.log_prob(z.clone()))
    assert len({tuple(row) for row in z.flatten(0, 1).tolist()}) == 24  # no draw is repeated


@families
def test_density_of_own_draw_is_the_density(name):
    q = build(name)(inputs(4, 5))
    z = q.rsample((5,))
    torch.testing.assert_close(q.log_prob(z), q.log_prob(z.clone()))


@families
@pytest.mark.parametrize(
    "loss", [Trace_ELBO(), Trace_ELBO(4), IWAE(4)], ids=["one", "four", "iwae"]
)
def test_trains_and_the_encoder_sees_each_datum_once(name, loss):
    vae = vae_with(name)
    x = pixels()
    pair = Pair(vae.model, vae.guide)
    with pair.isolated(validate=True, strict=True):
        pair.structure(((x,), {}))
        vae.encoder.net.calls = vae.encoder.net.rows = 0
        if name == "delta" and isinstance(loss, IWAE):
            with pytest.raises(ValueError, match="a point has no importance weight"):
                loss.score(pair, (x,), {})
            return
        loss.score(pair, (x,), {}).loss.backward()
    assert (vae.encoder.net.calls, vae.encoder.net.rows) == (1, len(x))
    assert [
        n for n, p in vae.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0
    ] == []
    assert all(p.grad.isfinite().all() for p in vae.parameters())


@pytest.mark.parametrize("name", DENSITIES)
def test_weights_for_any_number_of_samples(name):
    vae = vae_with(name)
    estimate = log_likelihood(vae.model, vae.guide, pixels(), num_samples=20)
    assert estimate.isfinite().all()


@families
def test_saves_and_loads(name, tmp_path):
    family, other = build(name), build(name, seed=5)
    torch.save(family.state_dict(), tmp_path / "family.pt")
    other.load_state_dict(torch.load(tmp_path / "family.pt", weights_only=True))
    z = family(inputs(4, 5)).sample()
    torch.testing.assert_close(family(inputs(4, 5)).log_prob(z), other(inputs(4, 5)).log_prob(z))


class Loss(nn.Module):
    """The ELBO of a pair as a module, so that its tensors can be given as arguments."""

    def __init__(self, vae):
        super().__init__()
        self.vae, self.pair = vae, Pair(vae.model, vae.guide)

    def forward(self, x):
        with self.pair.isolated(validate=False):
            self.pair.structure(((x,), {}))
            torch.manual_seed(3)
            return Trace_ELBO(2).score(self.pair, (x,), {}).loss


@families
def test_gradient_as_a_function_of_its_parameters(name):
    """With parameters as arguments torch.func sees what autograd sees; the step is one graph that asks for no number."""
    module, x = Loss(vae_with(name)), pixels()
    module(x)  # the structure is found eagerly, once
    free = {n: p.detach().clone().requires_grad_() for n, p in module.named_parameters()}
    grads = torch.func.grad(lambda free: functional_call(module, free, (x,)))(free)
    module(x).backward()
    for n, p in module.named_parameters():
        torch.testing.assert_close(grads[n], p.grad)

    def flat(x, *values):
        now = {
            n: v.detach().requires_grad_() for n, v in zip(free, values[: len(free)], strict=True)
        }
        buffers = dict(zip(dict(module.named_buffers()), values[len(free) :], strict=True))
        return torch.autograd.grad(functional_call(module, now | buffers, (x,)), list(now.values()))

    graph = make_fx(flat, tracing_mode="fake")(x, *free.values(), *module.buffers())
    assert not any("_local_scalar_dense" in str(node.target) for node in graph.graph.nodes)
    assert sum(node.op == "placeholder" for node in graph.graph.nodes) == 1 + len(free) + len(
        list(module.buffers())
    )


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
    """E_q[f(z)] and its gradient by every output of the network: draws against quadrature, within 4.5 standard errors."""
    torch.manual_seed(0)
    family = build(name, dim=2)
    outputs = family.net(inputs(5)).detach().requires_grad_()
    family.net = nn.Identity()
    z = family(outputs.expand(20_000, -1)).sample()
    center = (
        outputs[:2].detach() if name == "laplace" else z.mean(0)
    )  # its kink between two squares
    points, area = grid(1.4 * float((z - center).abs().max()), 400, center)
    exact = (waves(points) * family(outputs).log_prob(points).exp().unsqueeze(-1)).sum(0) * area
    difference = (waves(z) - exact).detach()
    assert (difference.mean(0).abs() < 4.5 * difference.std(0) / 20_000**0.5).all()
    rows = outputs.detach().expand(20_000, -1).clone().requires_grad_()
    resolution = (
        1e-2 if name == "spline" else 2e-4
    )  # the gradient of its density jumps at the knots, which no grid follows
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
    """Two modes 12 standard deviations apart, draws in their tails: float32 gradients stay near those of float64."""
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


def test_delta_has_zero_log_density_by_convention():
    vae = vae_with("delta")
    estimate = Trace_ELBO().estimate(vae.model, vae.guide, pixels())
    z = vae.encoder(pixels()).v
    log_joint = vae.prior().log_prob(z).sum() + vae.decoder(z).log_prob(pixels()).sum()
    torch.testing.assert_close(-estimate.loss, log_joint)


@pytest.mark.parametrize("name", PRIORS)
def test_priors(name):
    torch.manual_seed(0)
    prior = PRIORS[name](2).double()
    points, area = grid(20.0, 800)
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
    from pyro_vae.families.vamp import VampPrior

    vae = VAE(VampPrior(encoder, torch.rand(4, 5)), Bernoulli(mlp(2, 8, 5)), encoder)
    assert len(list(vae.parameters())) == 4 + 4 + 1
    z = torch.randn(6, 2)
    parts = encoder(vae.prior.pseudo_inputs())
    torch.testing.assert_close(
        vae.prior().log_prob(z),
        parts.log_prob(z.unsqueeze(1)).logsumexp(1) - torch.log(torch.tensor(4.0)),
    )


@pytest.mark.parametrize(
    "name",
    [
        n
        for n in DENSITIES
        if n not in ("diagonal", "laplace", "power spherical", "von mises-fisher")
    ],
)
def test_analytic_kl_is_refused_where_there_is_none(name):
    vae = vae_with(name)
    with pytest.raises(TypeError, match="closed-form KL"):
        TraceMeanField_ELBO().estimate(vae.model, vae.guide, pixels())


ERRORS = {
    "outputs": (
        lambda: FullRankNormal(nn.Identity())(torch.ones(3, 6)),
        "as many outputs as FullRankNormal needs (2, 5, 9, ...), got 6",
    ),
    "rank": (lambda: LowRankNormal(nn.Identity(), rank=0), "rank of at least 1, got 0"),
    "low rank": (
        lambda: LowRankNormal(nn.Identity(), rank=2)(torch.ones(6)),
        "(4, 8, 12, ...), got 6",
    ),
    "components": (lambda: MixtureOfNormals(nn.Identity(), 0), "components of at least 1, got 0"),
    "mixture": (
        lambda: MixtureOfNormals(nn.Identity(), 2)(torch.ones(7)),
        "MixtureOfNormals of 2 components needs (6, 10, 14, ...), got 7",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name):
    call, message = ERRORS[name]
    with pytest.raises(ValueError, match="expected") as error:
        call()
    assert message in str(error.value)


# The linear-Gaussian model, whose posterior is correlated: what each family misses of it at best, the encoder aside.


class Constant(nn.Module):
    """An encoder for one datum: outputs that are parameters."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.value = nn.Parameter(0.1 * inputs(outputs))

    def forward(self, x):
        return self.value.expand(*x.shape[:-1], -1)


def fit(truth: LinearGaussian, family: nn.Module, loss, steps: int = 1000, rate: float = 0.03):
    """Fit q(z) to the posterior of one datum; return KL(q || posterior), in nats, and its standard error."""
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
    """KL(q* || posterior) of the best diagonal q, whose precisions are the diagonal of the posterior's precision."""
    precision = torch.linalg.inv(truth.posterior_cov)
    return 0.5 * float(precision.diagonal().log().sum() - torch.logdet(precision))


def test_full_rank_finds_the_posterior():
    truth = LinearGaussian()
    family = FullRankNormal(Constant(FullRankNormal.outputs(4)))
    gap, error = fit(truth, family, STL(8))
    assert abs(gap) < 1e-3 + 4 * error
    with torch.no_grad():
        assert float(kl_divergence(family(truth.data(1)), truth.posterior(truth.data(1)))) < 1e-3


def test_diagonal_misses_exactly_the_correlations():
    truth = LinearGaussian()
    family = DiagonalNormal(Constant(8))
    gap, error = fit(truth, family, Trace_ELBO(32), steps=1500)
    assert mean_field_gap(truth) > 0.5
    assert abs(gap - mean_field_gap(truth)) < 4 * error + 0.005
    precision = torch.linalg.inv(truth.posterior_cov).diagonal()
    torch.testing.assert_close(
        family(truth.data(1)).variance[0].detach(), 1 / precision, rtol=0.1, atol=0
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["low rank", "mixture", "planar", "iaf", "realnvp", "spline"])
def test_other_families_lie_between(name):
    truth = LinearGaussian()
    torch.manual_seed(0)
    family = FAMILIES[name](8, 4)
    family.net = Constant(family.net[-1].out_features)
    if name == "mixture":  # from afar one component takes all: start around the posterior mean
        start = truth.posterior(truth.data(1)).mean[0]
        family.net.value.data[:] = torch.cat(
            [torch.zeros(3), (start + 0.3 * inputs(3, 4)).flatten(), torch.full((12,), -3.0)]
        )
    gap, error = fit(truth, family, Trace_ELBO(16), steps=800)
    assert -4 * error < gap < mean_field_gap(truth) - 4 * error
