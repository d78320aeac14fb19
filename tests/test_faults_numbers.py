"""Faults that an audit found in single numbers: densities in float32, chunks, masks, scales."""

import pyro
import pyro.distributions as dist
import pyro.infer
import pytest
import scipy.special
import torch
from linear_gaussian import LinearGaussian
from pyro import poutine
from pyro.nn import PyroModule, pyro_method
from torch import nn

from pyro_vae import VAE, Bernoulli, DiagonalNormal, StandardNormal, Trace_ELBO, mlp
from pyro_vae.evaluation.report import evaluate
from pyro_vae.families.flow import RealNVP
from pyro_vae.families.logistic import DiscretizedLogisticDistribution as DiscretizedLogistic
from pyro_vae.families.power_spherical import PowerSphericalDistribution
from pyro_vae.objectives.info import InfoVAE
from pyro_vae.objectives.score_function import ScoreFunction_ELBO

# 14. Power Spherical


@pytest.mark.parametrize("dim", [2, 3, 10, 50])
def test_power_spherical_normaliser_in_float32(dim):
    """log Z = (a + b) log 2 + b log pi + log Gamma(a) - log Gamma(a + b), its gradient, and E[log
    p], from scipy."""
    kappa = torch.logspace(-2, 7, 40)
    exact = kappa.double().numpy()
    b = (dim - 1) / 2
    a = exact + b
    ratio = -scipy.special.gammaln(a) + scipy.special.gammaln(a + b)
    truth = torch.tensor(ratio - (a + b) * 0.6931471805599453 - b * 1.1447298858494002)
    leaf = kappa.clone().requires_grad_()
    direction = torch.nn.functional.normalize(torch.ones(dim), dim=0)
    q = PowerSphericalDistribution(direction.expand(40, -1), leaf)
    at_mean = q.log_prob(direction)  # = log Z^-1 + kappa log 2: of moderate size
    expected = truth + kappa.double() * 0.6931471805599453
    torch.testing.assert_close(at_mean.double(), expected, atol=2e-3, rtol=1e-5)
    (slope,) = torch.autograd.grad(at_mean.sum(), leaf)
    true_slope = torch.tensor(scipy.special.digamma(a + b) - scipy.special.digamma(a))
    torch.testing.assert_close(slope.double(), true_slope, atol=1e-7, rtol=2e-3)
    entropy = expected + torch.tensor(
        exact * (scipy.special.digamma(a) - scipy.special.digamma(a + b))
    )
    torch.testing.assert_close(q.mean_log_density().double(), entropy, atol=2e-3, rtol=1e-5)


# 14. Discretised logistic


@pytest.mark.parametrize("log_scale", [-90.0, -200.0, -20.0, -7.0, -3.0, 0.0, 30.0])
@pytest.mark.parametrize("loc", [-0.1, 0.2, 0.50001, 1.3])
def test_discretized_logistic_at_any_scale(loc, log_scale):
    parameters = torch.tensor([loc, log_scale]).requires_grad_()
    q = DiscretizedLogistic(parameters[0], parameters[1])
    log_prob = q.log_prob(torch.arange(256))
    (gradient,) = torch.autograd.grad(log_prob.sum(), parameters)
    assert not log_prob.isnan().any()
    assert not gradient.isnan().any()
    assert gradient.isfinite().all()
    assert float(log_prob.detach().exp().sum()) == pytest.approx(1, abs=1e-4)
    assert q.mean.isfinite()


# 14. The chunk size


@pytest.mark.parametrize(
    "encoder",
    [lambda: DiagonalNormal(mlp(9, 8, 4)), lambda: RealNVP(mlp(9, 8, RealNVP.outputs(2)), 2)],
)
def test_evaluate_does_not_depend_on_the_size_of_its_chunks(encoder):
    torch.manual_seed(0)
    vae = VAE(StandardNormal(2), Bernoulli(mlp(2, 8, 9)), encoder()).double()
    x = (torch.rand(41, 9) > 0.5).double()
    results = []
    for chunk_bytes in (2**24, 72 * 40, 72 * 3):
        torch.manual_seed(1)
        results.append(
            evaluate(vae.model, vae.guide, x, num_samples=20, kl_draws=50, chunk_bytes=chunk_bytes)
        )
    for other in results[1:]:
        torch.testing.assert_close(other.log_px, results[0].log_px)
        assert other.kl.kl == pytest.approx(results[0].kl.kl)
        assert other.kl.mutual_information == pytest.approx(results[0].kl.mutual_information)
        assert other.active_units == results[0].active_units


# 14. The score


class Discrete(PyroModule):
    """z in {0, 1}: everything in closed form."""

    def __init__(self):
        super().__init__()
        self.logit = nn.Parameter(torch.tensor(0.3, dtype=torch.float64))

    @pyro_method
    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Bernoulli(x.new_tensor(0.4)))
            pyro.sample("x", dist.Normal(2 * z, 1.0), obs=x)

    @pyro_method
    def guide(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Bernoulli(logits=self.logit))

    @pyro_method
    def masked_guide(self, x):
        with poutine.mask(mask=False):
            self.guide(x)


@pytest.mark.parametrize("name", ["guide", "masked_guide"])
@pytest.mark.parametrize(
    "ours", [Trace_ELBO(50), ScoreFunction_ELBO(50)], ids=["plain", "baseline"]
)
def test_the_score_is_not_masked(name, ours):
    """A mask takes a site's density out of the ELBO; its draws go on depending on the guide."""
    pair, x = Discrete(), torch.tensor([0.5, 2.0, -1.0], dtype=torch.float64)
    guide = getattr(pair, name)
    normal, bernoulli = torch.distributions.Normal, torch.distributions.Bernoulli
    z = torch.tensor([0.0, 1.0], dtype=torch.float64).unsqueeze(-1)
    q = bernoulli(logits=pair.logit).log_prob(z)
    value = bernoulli(torch.tensor(0.4, dtype=torch.float64)).log_prob(z) + normal(
        2 * z, 1.0
    ).log_prob(x)
    elbo = (q.exp() * (value - (q if name == "guide" else 0))).sum()
    (truth,) = torch.autograd.grad(-elbo, pair.logit)
    torch.manual_seed(0)
    sampled = torch.stack(
        [
            torch.autograd.grad(ours.estimate(pair.model, guide, x).loss, pair.logit)[0]
            for _ in range(200)
        ]
    )
    assert float((sampled.mean() - truth).abs()) < 4 * float(sampled.std()) / 200**0.5 + 1e-9
    assert abs(float(truth)) > 0.1


def test_a_guide_with_a_mask_has_pyros_gradient():
    pair, x = Discrete(), torch.tensor([0.5, 2.0, -1.0], dtype=torch.float64)
    gradients = []
    for seed in range(100):
        torch.manual_seed(seed)
        with pyro.get_param_store().scope():
            loss = pyro.infer.Trace_ELBO(
                10, vectorize_particles=True, max_plate_nesting=1
            ).differentiable_loss(pair.model, pair.masked_guide, x)
        torch.manual_seed(seed)
        ours = ScoreFunction_ELBO(10).estimate(pair.model, pair.masked_guide, x).loss
        gradients.append([torch.autograd.grad(value, pair.logit)[0] for value in (loss, ours)])
    pyros, mine = torch.tensor(gradients).T
    assert (
        float((pyros.mean() - mine.mean()).abs())
        < 4 * float((pyros.var() + mine.var()).sqrt()) / 10
    )


# 14. The divergence of InfoVAE


@pytest.mark.parametrize("factor", [3.5, torch.tensor(3.5)])
def test_mmd_is_scaled_with_its_plate(factor):
    """A scale counts each datum so many times, in every term of the loss."""
    truth = LinearGaussian(latent=2)
    vae, x = truth.vae(truth.wrong_encoder()), truth.data(10)
    losses = []
    for model, guide in [
        (vae.model, vae.guide),
        (poutine.scale(vae.model, factor), poutine.scale(vae.guide, factor)),
    ]:
        torch.manual_seed(0)
        losses.append(InfoVAE(alpha=0.3, weight=1000.0).estimate(model, guide, x).loss)
    torch.testing.assert_close(losses[1], 3.5 * losses[0])


def test_power_spherical_in_float32_is_that_in_float64():
    """Near the mean, where the density of a certain guide lies."""
    direction = torch.nn.functional.normalize(torch.arange(1.0, 6.0, dtype=torch.float64), dim=0)
    aside = torch.nn.functional.normalize(torch.linalg.svd(direction[None]).Vh[1], dim=0)
    for kappa in (10.0, 1e3, 1e5):
        angle = torch.linspace(0, 3 / kappa**0.5, 20, dtype=torch.float64).unsqueeze(-1)
        z = angle.cos() * direction + angle.sin() * aside
        exact, rounded = (
            PowerSphericalDistribution(
                direction.to(dtype), torch.tensor(kappa, dtype=dtype)
            ).log_prob(z.to(dtype))
            for dtype in (torch.float64, torch.float32)
        )
        torch.testing.assert_close(rounded.double(), exact, atol=1e-3, rtol=1e-5)
