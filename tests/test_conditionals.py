"""Conditionals: every family against a trusted density, and properties that hold for all of them."""

import io
from typing import NamedTuple

import numpy as np
import pyro
import pytest
import scipy.integrate
import scipy.special
import scipy.stats
import torch
from torch import nn
from torch.func import functional_call

from pyro_vae import families as c
from pyro_vae import mlp

LATENT, DIM, BATCH = 3, 5, 4


def logistic_bins(out, x):
    """The discretized logistic as the textbook writes it, from whichever tail is the more accurate."""
    loc, log_scale = np.split(out, 2, -1)
    upper = np.where(x == 255, np.inf, ((x + 0.5) / 255 - loc) / np.exp(log_scale))
    lower = np.where(x == 0, -np.inf, ((x - 0.5) / 255 - loc) / np.exp(log_scale))
    cdf, sf = scipy.stats.logistic.cdf, scipy.stats.logistic.sf
    return np.log(np.where(lower > 0, sf(lower) - sf(upper), cdf(upper) - cdf(lower)))


@np.vectorize
def moment(logits, power=0):
    """The integral of t^power exp(logits t) over [0, 1], by quadrature."""
    return scipy.integrate.quad(lambda t: t**power * np.exp(logits * t), 0, 1)[0]


def diagonal_normal(out, x):
    loc, log_variance = np.split(out, 2, -1)
    return scipy.stats.norm(loc, np.exp(log_variance / 2)).logpdf(x)


class Case(NamedTuple):
    build: object  # net -> conditional
    family: type
    values: object  # a tensor of uniform random numbers -> values in the support
    log_prob: object  # (the network's outputs, values) -> elementwise truth
    mean: object  # the network's outputs -> elementwise truth


def real(u):
    return 4 * u - 2


def unit(u):
    return u


def expit_of(scale=1):
    return lambda out: scale * scipy.special.expit(out)


CASES = {
    "DiagonalNormal": Case(
        c.DiagonalNormal,
        c.DiagonalNormal,
        real,
        diagonal_normal,
        lambda out: np.split(out, 2, -1)[0],
    ),
    "Bernoulli": Case(
        c.Bernoulli,
        c.Bernoulli,
        torch.round,
        lambda out, x: scipy.stats.bernoulli(scipy.special.expit(out)).logpmf(x),
        expit_of(),
    ),
    "ContinuousBernoulli": Case(
        c.ContinuousBernoulli,
        c.ContinuousBernoulli,
        unit,
        lambda out, x: out * x - np.log(moment(out)),
        lambda out: moment(out, 1) / moment(out),
    ),
    "Normal": Case(
        lambda net, **kw: c.Normal(net, scale=0.3, **kw),
        c.Normal,
        unit,
        lambda out, x: scipy.stats.norm(out, 0.3).logpdf(x),
        lambda out: out,
    ),
    "Normal, learned scale": Case(
        lambda net, **kw: c.Normal(net, scale=2.0, learned=True, **kw),
        c.Normal,
        unit,
        lambda out, x: scipy.stats.norm(out, 2.0).logpdf(x),
        lambda out: out,
    ),
    "Binomial": Case(
        lambda net, **kw: c.Binomial(net, total_count=16, **kw),
        c.Binomial,
        lambda u: (16 * u).round(),
        lambda out, x: scipy.stats.binom(16, scipy.special.expit(out)).logpmf(x),
        expit_of(16),
    ),
    "DiscretizedLogistic": Case(
        c.DiscretizedLogistic,
        c.DiscretizedLogistic,
        lambda u: (255 * u).round(),
        logistic_bins,
        lambda out: sum(x * np.exp(logistic_bins(out, np.float64(x))) for x in range(256)),
    ),
}
LIKELIHOODS = [name for name in CASES if name != "DiagonalNormal"]
all_families = pytest.mark.parametrize("name", CASES)
# what the base class does is the same for all: with and without parameters beside the network's
of_the_base_class = pytest.mark.parametrize("name", ["DiagonalNormal", "Normal, learned scale"])
all_likelihoods = pytest.mark.parametrize("name", LIKELIHOODS)


def make(name, seed=0):
    """The conditional over a small network, in float32."""
    torch.manual_seed(seed)
    case = CASES[name]
    return case.build(mlp(LATENT, 8, case.family.outputs(DIM)))


def given(name, out):
    """The distribution for given outputs of the network."""
    return CASES[name].build(nn.Identity()).to(out.dtype)(out)


def draw(name, dtype=torch.float64, batch=BATCH, spread=1.5):
    """Random outputs of a network, and values in the support."""
    torch.manual_seed(0)
    case = CASES[name]
    out = spread * torch.randn(batch, case.family.outputs(DIM), dtype=dtype)
    return out, case.values(torch.rand(batch, DIM, dtype=dtype))


# Truth


@all_families
def test_log_prob(name):
    out, x = draw(name)
    truth = CASES[name].log_prob(out.numpy(), x.numpy()).sum(-1)
    torch.testing.assert_close(
        given(name, out).log_prob(x), torch.from_numpy(truth), atol=1e-6, rtol=1e-7
    )


@all_families
def test_log_prob_in_float32(name):
    out, x = draw(name)
    exact, rounded = given(name, out).log_prob(x), given(name, out.float()).log_prob(x.float())
    assert rounded.dtype == torch.float32
    torch.testing.assert_close(rounded.double(), exact, atol=1e-4, rtol=1e-5)


@all_families
def test_mean(name):
    out, _ = draw(name)
    truth = torch.from_numpy(np.asarray(CASES[name].mean(out.numpy())))
    torch.testing.assert_close(given(name, out).mean, truth, atol=1e-6, rtol=1e-6)


@all_families
def test_sample_mean_within_standard_errors(name):
    out, _ = draw(name, spread=0.5)
    d = given(name, out)
    n = 20_000
    samples = d.sample((n,))
    assert samples.shape == (n, BATCH, DIM)
    assert bool(d.support.check(samples).all())
    standard_error = samples.std(0) / n**0.5
    assert (
        (samples.mean(0) - d.mean).abs() < 4.5 * standard_error
    ).all()  # 20 means, each within 4.5: 1e-4 by chance


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
        inside = (
            min(0.5, 40 / abs(logits)) if logits else 0.5
        )  # nearly all of the mass, beside 0 or 1
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
    """d log p(x) / d logits = x - E[x], as for every exponential family: in float32, at the seams too."""
    t = torch.tensor(logits, requires_grad=True)
    d = c.ContinuousBernoulliDistribution(t)
    d.log_prob(torch.tensor(0.3)).backward()
    exact = c.ContinuousBernoulliDistribution(torch.tensor(logits, dtype=torch.float64)).mean
    torch.testing.assert_close(d.mean.detach().double(), exact, atol=3e-6, rtol=0)
    torch.testing.assert_close(t.grad.double(), 0.3 - exact, atol=3e-6, rtol=0)


def test_bernoulli_agrees_with_torch():
    """Value and gradient, for soft values as well; and closer to the truth than an ulp of the logits."""
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
    """Values and gradients far from the mean are finite and right, where the difference of sigmoids is 0."""
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


# Properties of every family


@all_families
def test_leading_dimensions(name):
    conditional = make(name)
    h = torch.randn(2, 3, LATENT)
    x = CASES[name].values(torch.rand(2, 3, DIM))
    d = conditional(h)
    assert d.batch_shape == (2, 3)
    assert d.event_shape == (DIM,)
    assert d.sample((7,)).shape == (7, 2, 3, DIM)
    assert d.mean.shape == (2, 3, DIM)
    together = d.log_prob(x)
    torch.testing.assert_close(
        torch.stack([conditional(block).log_prob(y) for block, y in zip(h, x, strict=True)]),
        together,
    )
    for i in range(2):
        for j in range(3):
            single = conditional(h[i, j])
            assert single.batch_shape == ()
            torch.testing.assert_close(single.log_prob(x[i, j]), together[i, j])


@all_families
def test_particles_share_the_data(name):
    conditional = make(name)
    h, x = torch.randn(6, BATCH, LATENT), CASES[name].values(torch.rand(BATCH, DIM))
    torch.testing.assert_close(
        conditional(h).log_prob(x), torch.stack([conditional(k).log_prob(x) for k in h])
    )


@all_families
def test_expand(name):
    out, x = draw(name, torch.float32)
    d = given(name, out)
    wide = d.expand((3, BATCH))
    assert wide.sample().shape == (3, BATCH, DIM)
    torch.testing.assert_close(wide.log_prob(x), d.log_prob(x).expand(3, BATCH))
    with pyro.plate("particles", 3, dim=-2), pyro.plate("data", BATCH, dim=-1):
        assert pyro.sample("x", d).shape == (3, BATCH, DIM)


@all_families
def test_gradient_reaches_every_parameter(name):
    conditional = make(name)
    x = CASES[name].values(torch.rand(16, DIM))
    conditional(torch.randn(16, LATENT)).log_prob(x).sum().backward()
    for key, p in conditional.named_parameters():
        assert p.grad is not None, key
        assert p.grad.isfinite().all(), key
        assert p.grad.abs().sum() > 0, key


@of_the_base_class
def test_gradient_by_functional_call(name):
    conditional = make(name)
    h, x = torch.randn(BATCH, LATENT), CASES[name].values(torch.rand(BATCH, DIM))
    parameters = {k: p.detach() for k, p in conditional.named_parameters()}

    def loss(values):
        return -functional_call(conditional, values, h).log_prob(x).sum()

    with pyro.validation_enabled(False):
        gradients, value = torch.func.grad_and_value(loss)(parameters)
    expected = -conditional(h).log_prob(x).sum()
    expected.backward()
    torch.testing.assert_close(value, expected.detach())
    torch.testing.assert_close(gradients, {k: p.grad for k, p in conditional.named_parameters()})


@of_the_base_class
def test_state_dict_round_trip(name):
    conditional, other = make(name), make(name, seed=1)
    file = io.BytesIO()
    torch.save(conditional.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    h, x = torch.randn(BATCH, LATENT), CASES[name].values(torch.rand(BATCH, DIM))
    torch.testing.assert_close(other(h).log_prob(x), conditional(h).log_prob(x), atol=0, rtol=0)


@pytest.mark.parametrize(
    ("name", "half"), [(name, torch.bfloat16) for name in CASES] + [("Bernoulli", torch.float16)]
)
def test_densities_of_half_precision_networks_are_single(name, half):
    conditional = make(name)
    h, x = torch.randn(BATCH, LATENT), CASES[name].values(torch.rand(BATCH, DIM))
    exact = conditional(h).log_prob(x)
    with torch.autocast("cpu", half):
        assert conditional.net(h).dtype == half
        d = conditional(h)
        log_prob, sample, mean = d.log_prob(x), d.sample(), d.mean
    assert {log_prob.dtype, sample.dtype, mean.dtype} == {torch.float32}
    torch.testing.assert_close(log_prob, exact, rtol=0.05, atol=0.3)


@all_families
def test_double_precision_stays(name):
    conditional = make(name).double()
    x = CASES[name].values(torch.rand(BATCH, DIM, dtype=torch.float64))
    d = conditional(torch.randn(BATCH, LATENT, dtype=torch.float64))
    assert {d.log_prob(x).dtype, d.sample().dtype, d.mean.dtype} == {torch.float64}


@all_families
def test_large_outputs_stay_finite(name):
    for sign in (-1.0, 1.0):
        out = torch.full((BATCH, CASES[name].family.outputs(DIM)), 40 * sign, requires_grad=True)
        x = CASES[name].values(torch.rand(BATCH, DIM))
        log_prob = given(name, out).log_prob(x)
        log_prob.sum().backward()
        assert log_prob.isfinite().all()
        assert out.grad.isfinite().all()


@all_families
def test_non_finite_outputs_are_not_hidden(name):
    out, x = draw(name, torch.float32)
    out[0, 0] = torch.nan
    with pyro.validation_enabled(False):
        log_prob = given(name, out).log_prob(x)
    assert log_prob[0].isnan()
    assert log_prob[1:].isfinite().all()
    with pyro.validation_enabled(True), pytest.raises(ValueError, match="nan"):
        given(name, out)


@all_likelihoods
def test_values_outside_the_support_are_refused(name):
    value = torch.full((BATCH, DIM), torch.nan if CASES[name].family is c.Normal else -0.5)
    with pyro.validation_enabled(True), pytest.raises(ValueError, match="support"):
        given(name, draw(name)[0]).log_prob(value)


@all_likelihoods
def test_events_of_several_dimensions(name):
    """Over images (..., C, H, W): the same density as over flat pixels, channels first."""
    case = CASES[name]
    torch.manual_seed(0)
    channels = case.family.outputs(2)
    out = torch.randn(BATCH, channels, 3, 4)
    x = case.values(torch.rand(BATCH, 2, 3, 4))
    images = case.build(nn.Identity(), event_dim=3)(out)
    assert images.batch_shape == (BATCH,)
    assert images.event_shape == (2, 3, 4)
    torch.testing.assert_close(
        images.log_prob(x), given(name, out.flatten(1)).log_prob(x.flatten(1))
    )
    with pytest.raises(ValueError, match="expected event_dim of at least 1, got 0"):
        case.build(nn.Identity(), event_dim=0)


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


@pytest.mark.parametrize(
    ("call", "message"),
    {
        "prior": (
            lambda: c.StandardNormal(0),
            "expected a dimension of at least 1, got 0",
        ),
        "zero scale": (
            lambda: c.Normal(nn.Identity(), scale=0.0),
            r"expected a positive, finite scale, got 0\.0",
        ),
        "NaN scale": (
            lambda: c.Normal(nn.Identity(), scale=float("nan")),
            "expected a positive, finite scale, got nan",
        ),
        "no trials": (
            lambda: c.Binomial(nn.Identity(), 0),
            "expected total_count of at least 1, got 0",
        ),
        "odd normal": (
            lambda: c.DiagonalNormal(mlp(2, 5))(torch.zeros(3, 2)),
            r"expected an even number of outputs, got \(3, 5\): give the network DiagonalNormal\.outputs\(dim\)",
        ),
        "odd logistic": (
            lambda: c.DiscretizedLogistic(nn.Identity())(torch.zeros(1)),
            r"even number of outputs, got \(1,\)",
        ),
    }.values(),
)
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()
