"""Likelihoods: every family against a trusted density, and properties that hold for all."""

import io

import numpy as np
import pyro
import pytest
import torch
from likelihood_cases import BATCH, CASES, DIM, LATENT, LIKELIHOODS, draw, given, make
from torch import nn
from torch.func import functional_call

from pyro_vae import families as c
from pyro_vae import mlp

all_families = pytest.mark.parametrize("name", CASES)
# what the base class does is the same for all: with and without parameters beside the network's
of_the_base_class = pytest.mark.parametrize("name", ["DiagonalNormal", "Normal, learned scale"])
all_likelihoods = pytest.mark.parametrize("name", LIKELIHOODS)


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
    # 20 means, each within 4.5: 1e-4 by chance
    assert ((samples.mean(0) - d.mean).abs() < 4.5 * standard_error).all()


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
    value = torch.full(
        (BATCH, DIM), torch.nan if CASES[name].family in (c.Normal, c.StudentT) else -0.5
    )
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
        "negative smallest scale": (
            lambda: c.DiagonalNormal(nn.Identity(), min_scale=-1.0),
            r"expected a min_scale of at least 0, got -1\.0",
        ),
        "no trials": (
            lambda: c.Binomial(nn.Identity(), 0),
            "expected total_count of at least 1, got 0",
        ),
        "odd normal": (
            lambda: c.DiagonalNormal(mlp(2, 5))(torch.zeros(3, 2)),
            r"expected an even number of outputs, got \(3, 5\): "
            r"give the network DiagonalNormal\.outputs\(dim\)",
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


@pytest.mark.parametrize("log_variance", [-200.0, -20.0, 0.0, 100.0, 170.0])
def test_the_smallest_scale_of_a_normal(log_variance):
    """The scale is (scale^2 + m^2)^(1/2), and finite with a finite gradient, for all outputs."""
    outputs = torch.tensor([0.0, log_variance], requires_grad=True)
    scale = c.DiagonalNormal(nn.Identity(), min_scale=1e-3)(outputs).base_dist.scale
    exact = (outputs[1:].double().exp() + 1e-6).sqrt().float()
    torch.testing.assert_close(scale, exact)
    scale.sum().backward()
    assert outputs.grad.isfinite().all()
