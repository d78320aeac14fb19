"""Densities of pixels in their tails, at their seams and on their supports; the standard Normal."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from likelihood_cases import DIM
from torch import nn

from pyro_vae import families as c
from pyro_vae.families.logistic import LogisticPixels


def continuous_bernoulli_cdf(logits, x):
    """(1 - exp(logits x)) / (1 - exp(logits)), mirrored for positive logits."""
    below = np.expm1(-abs(logits) * (x if logits < 0 else 1 - x)) / np.expm1(-abs(logits))
    return below if logits < 0 else 1 - below


def test_sampled_distributions():
    """Samples against cumulative distributions: p-values above 1e-3, 12 tests with a fixed seed."""
    torch.manual_seed(0)
    n = 5000
    for logits in [-300.0, -20.0, -1.0, 0.0, 1e-4, 2.0, 40.0]:
        x = (
            c.ContinuousBernoulliDistribution(torch.tensor(logits, dtype=torch.float64))
            .sample((n,))
            .numpy()
        )
        assert (
            scipy.stats.kstest(
                x, lambda t, s=logits or 1e-12: continuous_bernoulli_cdf(s, t)
            ).pvalue
            > 1e-3
        ), logits
    for loc, scale in [(0.5, 0.01), (0.0, 0.05), (1.1, 0.1), (0.3, 1.0), (0.502, 0.0005)]:
        d = c.DiscretizedLogisticDistribution(torch.tensor(loc), torch.tensor(scale).log())
        expected = n * d.log_prob(torch.arange(256.0)).exp().double()
        counts = torch.bincount(d.sample((n,)).long(), minlength=256).double()
        keep = expected > 5
        observed = torch.cat([counts[keep], counts[~keep].sum()[None]])
        wanted = torch.cat([expected[keep], expected[~keep].sum()[None] + 1e-9])
        assert (
            scipy.stats.chisquare(observed, wanted * observed.sum() / wanted.sum()).pvalue > 1e-3
        ), (loc, scale)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_discrete_probabilities_sum_to_one(dtype):
    locs = torch.tensor([-50.0, -1.0, 0.0, 1 / 510, 0.3, 0.5, 1.0, 2.0, 50.0], dtype=dtype)
    log_scales = torch.tensor([-70.0, -14.0, -7.0, -3.0, 0.0, 7.0, 30.0], dtype=dtype)
    logistic = c.DiscretizedLogisticDistribution(*torch.meshgrid(locs, log_scales, indexing="ij"))
    logits = torch.tensor([-1e4, -50.0, -3.0, 0.0, 3.0, 50.0, 1e4], dtype=dtype)
    for d, top in [
        (logistic, 255),
        (c.BernoulliDistribution(logits=logits), 1),
        *[(c.BinomialDistribution(n, logits), n) for n in (1, 16, 255)],
    ]:
        values = torch.arange(top + 1, dtype=dtype).reshape(-1, *[1] * len(d.batch_shape))
        total = d.log_prob(values).logsumexp(0)
        torch.testing.assert_close(
            total, torch.zeros_like(total), atol=2e-4 if dtype == torch.float32 else 1e-10, rtol=0
        )


@pytest.mark.parametrize(
    "logits", [-2e3, -30.0, -0.9, -0.11, -0.09, -1e-6, 0.0, 1e-6, 0.09, 0.11, 0.9, 30.0, 2e3]
)
def test_continuous_bernoulli_integrates_to_one(logits):
    for dtype, tolerance in [(torch.float64, 1e-9), (torch.float32, 1e-4)]:
        d = c.ContinuousBernoulliDistribution(torch.tensor(logits, dtype=dtype))
        # nearly all of the mass lies this close to 0 or 1
        inside = min(0.5, 40 / abs(logits)) if logits else 0.5
        low, high = (0.0, inside) if logits < 0 else (1 - inside, 1.0)
        nodes, weights = np.polynomial.legendre.leggauss(60)
        total = 0.0
        for a, b in [(low, high), (high, 1.0) if logits < 0 else (0.0, low)]:
            x = torch.from_numpy(a + (b - a) * (nodes + 1) / 2)
            total += (
                float((d.log_prob(x.to(dtype)).double().exp() * torch.from_numpy(weights)).sum())
                * (b - a)
                / 2
            )
        assert abs(total - 1) < tolerance * max(1.0, abs(logits) / 30)


@pytest.mark.parametrize("logits", [-50.0, -0.1, -0.0999, -1e-4, 0.0, 1e-7, 0.0999, 0.1, 50.0])
def test_continuous_bernoulli_score_is_value_minus_mean(logits):
    """d log p(x) / d logits = x - E[x], as in every exponential family, in float32 too."""
    t = torch.tensor(logits, requires_grad=True)
    d = c.ContinuousBernoulliDistribution(t)
    d.log_prob(torch.tensor(0.3)).backward()
    exact = c.ContinuousBernoulliDistribution(torch.tensor(logits, dtype=torch.float64)).mean
    torch.testing.assert_close(d.mean.detach().double(), exact, atol=3e-6, rtol=0)
    torch.testing.assert_close(t.grad.double(), 0.3 - exact, atol=3e-6, rtol=0)


def test_bernoulli_agrees_with_torch():
    """Value and gradient, for soft values too; in float32 the error is below one ulp."""
    logits = torch.linspace(-60, 60, 1001, dtype=torch.float64)
    for x in (0.0, 0.3, 1.0):
        ours, theirs, single = (
            logits.clone().to(t).requires_grad_()
            for t in (torch.float64, torch.float64, torch.float32)
        )
        value = torch.tensor(x, dtype=torch.float64)
        log_prob = c.BernoulliDistribution(logits=ours, validate_args=False).log_prob(value)
        truth = torch.distributions.Bernoulli(logits=theirs, validate_args=False).log_prob(value)
        rounded = c.BernoulliDistribution(logits=single, validate_args=False).log_prob(
            value.float()
        )
        for y in (log_prob, truth, rounded):
            y.sum().backward()
        torch.testing.assert_close(log_prob, truth, atol=1e-14, rtol=1e-14)
        torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-14, rtol=1e-14)
        torch.testing.assert_close(rounded.double(), truth, atol=4e-6, rtol=0)
        torch.testing.assert_close(single.grad.double(), theirs.grad, atol=1e-6, rtol=0)


def test_discretized_logistic_in_its_tails():
    """Far from the mean, where two sigmoids differ by 0, value and gradient are right."""
    x = torch.tensor([0.0, 1.0, 128.0, 254.0, 255.0])
    for loc, log_scale in [
        (0.0, -12.0),
        (1.0, -12.0),
        (0.5, -12.0),
        (-20.0, -3.0),
        (20.0, -3.0),
        (0.5, 25.0),
        (0.5, -50.0),
    ]:
        single, double = (
            torch.tensor([loc, log_scale], dtype=t).requires_grad_()
            for t in (torch.float32, torch.float64)
        )
        for p in (single, double):
            d = c.DiscretizedLogisticDistribution(p[0], p[1])
            p.log_prob = d.log_prob(x.to(p.dtype))
            p.log_prob.sum().backward()
        assert single.log_prob.isfinite().all()
        assert single.grad.isfinite().all()
        torch.testing.assert_close(single.log_prob.double(), double.log_prob, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(single.grad.double(), double.grad, atol=1e-2, rtol=1e-3)
    steep = c.DiscretizedLogisticDistribution(
        *torch.tensor([0.0, np.log(0.001)], dtype=torch.float64)
    )
    # far above loc, log p(x) = -lower / s + log(1 - exp(-width / s))
    expected = -199.5 / 255 / 0.001 + np.log(-np.expm1(-1 / 255 / 0.001))
    torch.testing.assert_close(
        steep.log_prob(torch.tensor(200.0, dtype=torch.float64)),
        torch.tensor(expected, dtype=torch.float64),
    )


# Pixels

PIXELS = {
    "static": torch.tensor([0.0, 1.0]),
    "dynamic": torch.tensor([0.0, 1.0]),
    "threshold": torch.tensor([0.0, 1.0]),
    "grey": torch.tensor([0.0, 0.3, 1.0]),
    "counts": torch.tensor([0.0, 5.0, 16.0]),
    "8bit": torch.tensor([0.0, 100.0, 255.0]),
}
PIXEL_LIKELIHOODS = {
    "Bernoulli": c.Bernoulli,
    "ContinuousBernoulli": c.ContinuousBernoulli,
    "Normal": c.Normal,
    "Binomial": lambda net: c.Binomial(net, total_count=255),
    "DiscretizedLogistic": c.DiscretizedLogistic,
}


@pytest.mark.parametrize("name", PIXEL_LIKELIHOODS)
def test_pixels_lie_in_the_support(name):
    likelihood = PIXEL_LIKELIHOODS[name](nn.Identity())
    assert likelihood.pixels
    for kind in likelihood.pixels:
        x = PIXELS[kind]
        d = likelihood(torch.zeros(likelihood.outputs(len(x))))
        assert bool(d.support.check(x).all()), kind
        assert d.log_prob(x).isfinite(), kind


def test_every_kind_of_pixel_has_a_likelihood():
    assert (
        frozenset().union(*(build(nn.Identity()).pixels for build in PIXEL_LIKELIHOODS.values()))
        == PIXELS.keys()
    )


# The rest


def test_standard_normal():
    prior = c.StandardNormal(4)
    z = torch.randn(10, 4)
    torch.testing.assert_close(
        prior().log_prob(z), torch.from_numpy(scipy.stats.norm.logpdf(z).sum(-1)).float()
    )
    assert prior.double()().sample().dtype == torch.float64
    assert {buffer.dtype for buffer in prior.buffers()} == {torch.float64}
    assert not list(prior.parameters())


def test_learned_scale_reaches_its_maximum_likelihood():
    """At the optimum the scale is the root mean square residual."""
    torch.manual_seed(0)
    net, x = nn.Identity(), torch.randn(500, DIM, dtype=torch.float64)
    conditional = c.Normal(net, scale=0.3, learned=True).double()
    optimiser = torch.optim.LBFGS(conditional.parameters(), line_search_fn="strong_wolfe")

    def closure():
        optimiser.zero_grad()
        loss = -conditional(torch.zeros_like(x)).log_prob(x).mean()
        loss.backward()
        return loss

    optimiser.step(closure)
    torch.testing.assert_close(
        conditional.log_scale.detach().exp(), x.square().mean().sqrt(), rtol=1e-5, atol=0
    )
    assert not list(c.Normal(net, scale=0.3).parameters())


def test_enumeration_of_bernoulli_latents():
    d = c.BernoulliDistribution(logits=torch.zeros(3))
    assert d.enumerate_support(expand=False).shape == (2, 1)


@pytest.mark.parametrize("rows", [3, 1])
def test_without_gradients_densities_are_the_same(rows):
    """There they are computed in place, and once for copies of the data."""
    torch.manual_seed(0)
    a, b = 5 * torch.randn(2, 3, 256)
    x = torch.arange(256.0).expand(rows, -1).expand(3, -1)
    d = c.BernoulliDistribution(logits=10 * a)
    expected = d.log_prob(x % 2)
    with torch.no_grad():
        torch.testing.assert_close(d.log_prob(x % 2), expected, rtol=0, atol=0)
        logistic = c.DiscretizedLogisticDistribution(a / 5, b - 4)
        exact = c.DiscretizedLogisticDistribution(a.double() / 5, b.double() - 4).log_prob(x)
        torch.testing.assert_close(logistic.log_prob(x), exact.float(), rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("width", [1e-6, 0.01, 0.2499, 0.25, 0.2501, 1.0, 30.0, 1e6])
def test_logistic_pixels_of_any_width(width):
    """One logarithm for a group, and one for each pixel: both are those of float64 to rounding.

    The width is that of a bin, in scales; edges, the centre, and points far from it.
    """
    torch.manual_seed(0)
    x = torch.tensor([0, 1, 127, 128, 254, 255]).repeat(70).float()
    log_scale = torch.full((3, len(x)), -math.log(255 * width))
    scale = log_scale.exp()
    loc = x / 255 + torch.tensor([[0.0], [0.4], [6.0]]) * scale * torch.randn(3, len(x))
    with torch.no_grad():
        exact = c.DiscretizedLogisticDistribution(loc.double(), log_scale.double()).log_prob(x)
        d = c.DiscretizedLogisticDistribution(loc, log_scale, validate_args=False)
        rounding = 1e-6 + 5e-5 * width  # of loc, in scales
        torch.testing.assert_close(d.log_prob(x), exact.float(), rtol=2e-6, atol=rounding)
        for value in (x.expand(3, -1), x.repeat(3, 1)):
            total = LogisticPixels(d, 1).log_prob(value)
            torch.testing.assert_close(total, exact.sum(-1).float(), rtol=2e-6, atol=420 * rounding)


@pytest.mark.parametrize("grad", [False, True])
def test_the_density_of_a_value_that_is_wider_than_the_parameters(grad):
    """An expanded value of levels 0 to 255, with and without gradients."""
    d = c.DiscretizedLogisticDistribution(torch.rand(3), torch.zeros(3))
    value = torch.tensor([0.0, 7.0, 255.0])
    with torch.set_grad_enabled(grad):
        log_prob = d.log_prob(value.expand(4, 3))
    torch.testing.assert_close(log_prob, d.log_prob(value).expand(4, 3))
