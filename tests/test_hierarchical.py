"""Models of several stochastic layers, with the bottom-up guide and with the ladder's."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

from pyro_vae import (
    VAE,
    Bernoulli,
    DiagonalNormal,
    Normal,
    StandardNormal,
    evaluate,
    log_likelihood,
    log_weights,
    mlp,
)
from pyro_vae.evaluation import active_units, kl_by_site, latent_means, means_by_site
from pyro_vae.families import product
from pyro_vae.models import HierarchicalVAE, LadderVAE


def linear(weight, bias=0.0):
    """A linear map with given numbers."""
    weight = torch.as_tensor(weight, dtype=torch.float64)
    layer = nn.Linear(*weight.T.shape, dtype=torch.float64)
    nn.init.constant_(layer.bias, bias)
    layer.weight.data = weight
    return layer


def head(weight, scale):
    """N(weight h, scale^2) of one dimension."""
    layer = linear([[weight], [0.0]])
    layer.bias.data[1] = 2 * math.log(scale)
    return DiagonalNormal(layer)


def three_layers():
    """Linear and Gaussian, of 1, 2 and 3 dimensions."""
    torch.manual_seed(0)
    W3, W2, W1 = (0.4 * torch.randn(size) for size in ((2, 1), (3, 2), (4, 3)))
    layers = [Normal(linear(W2), 0.8), Normal(linear(W3), 0.6)]
    encoders = [Normal(linear(W.T), 0.8) for W in (W1, W2, W3)]
    vae = HierarchicalVAE(StandardNormal(1), layers, Normal(linear(W1), 0.7), encoders).double()
    W3, W2, W1 = (W.double() for W in (W3, W2, W1))
    above = W3 @ W3.T + 0.6**2 * torch.eye(2)
    middle = W2 @ above @ W2.T + 0.8**2 * torch.eye(3)
    covariance = W1 @ middle @ W1.T + 0.7**2 * torch.eye(4)
    return vae, dist.MultivariateNormal(torch.zeros(4, dtype=torch.float64), covariance)


def test_log_likelihood_of_three_linear_layers_is_the_closed_form():
    vae, evidence = three_layers()
    x = evidence.sample((3,))
    result = evaluate(vae.model, vae.guide, x, num_samples=20000, kl_draws=0)
    error = (result.log_px - evidence.log_prob(x)).abs()
    assert (result.standard_error < 0.05).all()
    assert (error < 5 * result.standard_error).all()


def test_one_layer_is_the_vae():
    prior, decoder = StandardNormal(2), Bernoulli(mlp(2, 8, 6))
    encoder = DiagonalNormal(mlp(6, 8, 4))
    one, vae = HierarchicalVAE(prior, [], decoder, [encoder]), VAE(prior, decoder, encoder)
    x = torch.rand(5, 6).round()
    weights = []
    for model in (one, vae):
        pyro.set_rng_seed(0)
        weights.append(log_weights(model.model, model.guide, x, num_samples=3))
    torch.testing.assert_close(*weights)


def exact_ladder():
    """x | z1 ~ N(z1, 1/4), z1 | z2 ~ N(2 z2, 1/9), with the evidence that x gives exactly."""
    below, decoder = head(2.0, 1 / 3), head(1.0, 0.5)
    variance = 1 / 9 + 1 / 4
    precision = 1 + 4 / variance
    encoders = [head(1.0, 0.5), head(2 / variance / precision, precision**-0.5)]
    return LadderVAE(
        *(StandardNormal(1), [below], decoder, encoders, [nn.Identity(), nn.Identity()])
    ).double()


def test_a_ladder_with_exact_evidence_is_the_exact_posterior():
    ladder = exact_ladder()
    x = torch.tensor([[-1.0], [0.3], [4.0]], dtype=torch.float64)
    weights = log_weights(ladder.model, ladder.guide, x, num_samples=7)
    exact = dist.Normal(0.0, math.sqrt(4 + 1 / 9 + 1 / 4)).log_prob(x).squeeze(-1)
    torch.testing.assert_close(weights, exact.expand(7, 3))


def test_product_is_proportional_to_the_product_of_the_densities():
    p, q = (dist.Normal(torch.randn(5, 3), torch.rand(5, 3) + 0.5).to_event(1) for _ in range(2))
    z = torch.randn(100, 5, 3)
    rest = p.log_prob(z) + q.log_prob(z) - product(p, q).log_prob(z)
    torch.testing.assert_close(rest, rest[:1].expand_as(rest), rtol=1e-4, atol=1e-4)


def test_product_refuses_other_distributions():
    p = dist.Normal(torch.zeros(2), 1.0).to_event(1)
    with pytest.raises(TypeError, match="expected diagonal Normals, got a Laplace"):
        product(p, dist.Laplace(torch.zeros(2), 1.0).to_event(1))
    with pytest.raises(TypeError, match="got a MultivariateNormal"):
        product(dist.MultivariateNormal(torch.zeros(2), torch.eye(2)), p)


@pytest.mark.parametrize("number", [0, 2])
def test_refuses_another_number_of_encoders(number):
    layers, encoders = [DiagonalNormal(mlp(2, 6))] * number, [DiagonalNormal(mlp(6, 4))] * 2
    with pytest.raises(ValueError, match=f"expected {number + 1} encoders .* got 2"):
        HierarchicalVAE(StandardNormal(2), layers, Bernoulli(mlp(3, 6)), encoders)


def test_refuses_another_number_of_networks_up():
    with pytest.raises(ValueError, match="expected 1 networks up, got 0"):
        LadderVAE(StandardNormal(2), [], Bernoulli(mlp(2, 6)), [DiagonalNormal(mlp(6, 4))], [])


def test_kl_by_site_adds_up_to_the_rate():
    vae, evidence = three_layers()
    x = evidence.sample((50,))
    kl = kl_by_site(vae.model, vae.guide, x, num_samples=2000)
    result = evaluate(vae.model, vae.guide, x, num_samples=2000, kl_draws=0)
    assert list(kl) == ["z1", "z2", "z3"]
    total = sum(kl.values())
    assert abs(float((total - result.rate).mean())) < 0.05  # the standard error is below 0.01


def test_kl_by_site_of_one_layer_is_the_closed_form():
    q = dist.Normal(torch.tensor([[0.5, 1.0]]), torch.tensor([[0.5, 2.0]])).to_event(1)
    layer = linear([[0.0], [0.0], [0.0], [0.0]]).float()
    layer.bias.data = torch.cat([q.mean[0], 2 * q.base_dist.scale[0].log()])
    vae = VAE(StandardNormal(2), Bernoulli(mlp(2, 1)), DiagonalNormal(layer))
    torch.manual_seed(0)
    kl = kl_by_site(vae.model, vae.guide, torch.ones(1, 1), num_samples=100000)
    exact = torch.distributions.kl_divergence(q, StandardNormal(2)().expand((1,)))
    torch.testing.assert_close(kl["z"], exact, rtol=0, atol=0.05)  # standard error 0.01


def test_kl_by_site_refuses_factors_and_too_few_samples():
    vae = exact_ladder()
    x = torch.ones(2, 1, dtype=torch.float64)

    def guide(x):
        vae.guide(x)
        pyro.factor("bonus", x.sum(-1), has_rsample=True)

    with pytest.raises(ValueError, match="num_samples of at least 1, got 0"):
        kl_by_site(vae.model, vae.guide, x, num_samples=0)
    with pytest.raises(ValueError, match="expected"):
        kl_by_site(vae.model, guide, x)


def test_means_by_site_are_the_parts_of_the_latent_means():
    vae, evidence = three_layers()
    x = evidence.sample((20,))
    pyro.set_rng_seed(1)
    parts = means_by_site(vae.guide, x)
    pyro.set_rng_seed(1)
    torch.testing.assert_close(torch.cat([*parts.values()], -1), latent_means(vae.guide, x))
    assert {name: part.shape[1] for name, part in parts.items()} == {"z1": 3, "z2": 2, "z3": 1}
    assert active_units(parts["z1"]) == 3


def test_sample_has_the_moments_of_the_model():
    vae, evidence = three_layers()
    torch.manual_seed(0)
    x = vae.sample(40000)
    torch.testing.assert_close(x.T.cov(), evidence.covariance_matrix, rtol=0.05, atol=0.1)
    assert log_likelihood(vae.model, vae.guide, x[:2], num_samples=2).shape == (2,)
