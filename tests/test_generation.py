"""What a pair generates agrees with its densities and with the methods of VAE."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from linear_gaussian import LinearGaussian
from torch import nn

from pyro_vae import VAE, Bernoulli, DiagonalNormal, StandardNormal, mlp
from pyro_vae.evaluation.generation import decode, interpolate, reconstruct, sample, traverse


def a_vae(latent=3):
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.BatchNorm1d(8), mlp(8, 6, 2 * latent))
    return VAE(StandardNormal(latent), Bernoulli(mlp(latent, 6, 8)), DiagonalNormal(encoder))


X = torch.rand(4, 8, generator=torch.Generator().manual_seed(1)).round()


def test_samples_of_the_linear_gaussian():
    truth = LinearGaussian()
    torch.manual_seed(0)
    x = sample(truth.vae().model, truth.data(1).expand(20_000, -1))
    expected = truth.data(20_000, seed=3)
    error = (x.var(0) / len(x) + expected.var(0) / len(x)).sqrt()
    assert ((x.mean(0) - expected.mean(0)).abs() < 4.5 * error).all()
    assert (x.T.cov() - expected.T.cov()).abs().max() < 4.5 * (2 / len(x)) ** 0.5 * (
        2 * x.var(0).max()
    )


def test_samples_and_means_are_those_of_the_method():
    vae = a_vae().eval()
    for mean in (True, False):
        torch.manual_seed(2)
        expected = vae.sample(4, mean=mean)
        torch.manual_seed(2)
        assert torch.equal(sample(vae.model, X, mean=mean), expected)


def test_reconstructions_are_means_at_draws_of_the_guide():
    vae = a_vae().eval()
    torch.manual_seed(2)
    z = vae.encoder(X).sample()
    torch.manual_seed(2)
    assert torch.equal(reconstruct(vae.model, vae.guide, X), vae.decoder(z).mean)
    draws = torch.stack([reconstruct(vae.model, vae.guide, X, mean=False) for _ in range(2)])
    assert set(draws.unique().tolist()) == {0.0, 1.0}
    assert not torch.equal(*draws)


def test_hand_written_programs_with_two_observed_sites():
    net = nn.Linear(1, 1)

    def model(x, y):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
            pyro.sample("x", dist.Normal(100 + z, 1e-3), obs=x)
            pyro.sample("y", dist.Normal(-z, 1e-3), obs=y)

    def guide(x, y):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(net(x[:, None])[:, 0], 1e-3))

    x, y = torch.arange(3.0), torch.zeros(3)
    with pytest.raises(ValueError, match=r"one observed site, or site=, got \['x', 'y'\]"):
        sample(model, x, y)
    with pytest.raises(ValueError, match=r"expected site to be one of \['x', 'y'\], got 'z'"):
        reconstruct(model, guide, x, y, site="z")
    drawn = sample(model, x, y, site="x")
    assert (drawn - 100).abs().max() < 6
    again = reconstruct(model, guide, x, y, site="y")
    torch.testing.assert_close(again, -net(x[:, None])[:, 0], atol=0.01, rtol=0)
    assert not again.requires_grad


def test_a_walk_from_one_datum_to_another():
    vae = a_vae().eval()
    a, b = X[:2], X[2:]
    path = interpolate(vae, a, b, n=5)
    assert path.shape == (5, 2, 8)
    torch.testing.assert_close(path[0], vae.reconstruct(a))
    torch.testing.assert_close(path[4], vae.reconstruct(b))
    torch.testing.assert_close(path[2], decode(vae, (vae.encode(a) + vae.encode(b)) / 2))


def test_one_latent_moves_at_a_time():
    vae = a_vae().eval()
    x = traverse(vae, X[0], dims=[2, 0], n=3, span=1.5)
    assert x.shape == (2, 3, 8)
    z = vae.encode(X[:1])[0]
    for row, dim in enumerate([2, 0]):
        for column, value in enumerate([-1.5, 0.0, 1.5]):
            moved = z.clone()
            moved[dim] = value
            torch.testing.assert_close(x[row, column], decode(vae, moved[None])[0])
    assert traverse(vae, X[0]).shape == (3, 9, 8)


def test_nothing_changes():
    vae = a_vae().train()
    state = {name: value.clone() for name, value in vae.state_dict().items()}
    for x in (
        sample(vae.model, X),
        reconstruct(vae.model, vae.guide, X),
        interpolate(vae, X, X.flip(0)),
        traverse(vae, X[0]),
        decode(vae, torch.zeros(2, 3)),
    ):
        assert not x.requires_grad
    torch.testing.assert_close(dict(vae.state_dict()), state, rtol=0, atol=0)
    assert all(module.training for module in vae.modules())


def test_errors():
    vae = a_vae()
    with pytest.raises(ValueError, match=r"as many data at both ends, got .4, 8. and .2, 8."):
        interpolate(vae, X, X[:2])
    with pytest.raises(ValueError, match="expected at least 2 points, got 1"):
        interpolate(vae, X, X, n=1)
    with pytest.raises(ValueError, match=r"expected some of the 3 latents, got \[0, 3\]"):
        traverse(vae, X[0], dims=[0, 3])
