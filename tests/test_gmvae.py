"""A mixture of Gaussians in latent space, and the accuracy of clusters."""

from itertools import permutations

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyro_vae import SVI, Bernoulli, DiagonalNormal, Trace_ELBO, log_weights, mlp
from pyro_vae.evaluation import cluster_accuracy
from pyro_vae.families import FullRankMixturePrior, MixturePrior
from pyro_vae.models import GMVAE

C, D = 3, 2


def prior(kind=MixturePrior):
    """Three components that differ in all they have."""
    torch.manual_seed(0)
    mixture = kind(D, C)
    if kind is FullRankMixturePrior:
        mixture.below.data = torch.randn(C, D, D)
    mixture.logits.data = torch.randn(C)
    mixture.log_scale.data = 0.3 * torch.randn(C, D)
    return mixture


def gmvae(kind=MixturePrior):
    return GMVAE(prior(kind), Bernoulli(mlp(D, 8, 6)), DiagonalNormal(mlp(6, 8, 2 * D)))


@pytest.mark.parametrize("kind", [MixturePrior, FullRankMixturePrior])
def test_summing_y_out_of_the_model_is_the_collapsed_model(kind):
    vae = gmvae(kind).double()
    x = torch.rand(5, 6, dtype=torch.float64).round()
    weights = []
    for model in (vae.model, vae.collapsed):
        pyro.set_rng_seed(0)
        weights.append(log_weights(model, vae.guide, x, num_samples=4))
    torch.testing.assert_close(*weights)


@pytest.mark.parametrize("kind", [MixturePrior, FullRankMixturePrior])
def test_both_models_have_the_gradients_of_one_elbo(kind):
    vae = gmvae(kind).double()
    x = torch.rand(5, 6, dtype=torch.float64).round()
    grads = []
    for model in (vae.model, vae.collapsed):
        pyro.set_rng_seed(0)
        loss = Trace_ELBO(num_particles=3).estimate(model, vae.guide, x).loss
        grads.append(torch.autograd.grad(loss, [*vae.parameters()]))
    for first, second in zip(*grads, strict=True):
        torch.testing.assert_close(first, second)


@pytest.mark.parametrize("kind", [MixturePrior, FullRankMixturePrior])
def test_responsibilities_are_bayes(kind):
    mixture = prior(kind)
    z = torch.randn(4, 7, D)
    joint = [
        mixture.logits.softmax(-1)[y] * mixture.component(torch.tensor(y)).log_prob(z).exp()
        for y in range(C)
    ]
    exact = torch.stack(joint, -1) / sum(joint).unsqueeze(-1)
    torch.testing.assert_close(mixture.responsibilities(z), exact)
    torch.testing.assert_close(mixture().log_prob(z).exp(), sum(joint))


def test_full_rank_components_are_torchs():
    mixture = prior(FullRankMixturePrior)
    L = mixture.log_scale.exp().unsqueeze(-1) * (torch.eye(D) + mixture.below.tril(-1))
    exact = dist.MultivariateNormal(mixture.loc, covariance_matrix=L @ L.mT)
    z = torch.randn(5, 1, D)
    ours = mixture.component(torch.arange(C)).log_prob(z)
    torch.testing.assert_close(ours, exact.log_prob(z), rtol=1e-4, atol=1e-4)


def test_cluster_averages_over_the_posterior():
    """Two components at -1 and 1 and q = N(m, 1): E[p(y = 1 | z)] by quadrature."""
    mixture = MixturePrior(1, 2)
    mixture.loc.data = torch.tensor([[-1.0], [1.0]])
    vae = GMVAE(mixture, Bernoulli(mlp(1, 3)), DiagonalNormal(mlp(3, 2)))
    x = torch.ones(1, 3)
    q = vae.encoder(x)
    torch.manual_seed(0)
    ours = vae.cluster(x, num_samples=20000)
    z = torch.linspace(-12, 12, 4001).unsqueeze(-1)
    exact = (q.log_prob(z).exp() * (2 * z).sigmoid().squeeze(-1)).sum() * 24 / 4000
    torch.testing.assert_close(ours[0, 1], exact, rtol=0, atol=0.01)  # standard error 0.003
    torch.testing.assert_close(ours.sum(-1), torch.ones(1))


def test_sample_is_of_the_cluster_asked_for():
    vae = gmvae()
    vae.prior.loc.data = torch.tensor([[-50.0, 0.0], [0.0, 0.0], [50.0, 0.0]])
    vae.prior.log_scale.data.fill_(-3.0)
    y = torch.tensor([2, 0, 1, 2])
    z = vae.prior.component(y).sample()
    assert vae.prior.responsibilities(z).argmax(-1).tolist() == y.tolist()
    assert vae.sample(y).shape == vae.sample(y, mean=True).shape == (4, 6)


def test_training_finds_two_kinds_of_pictures():
    """Ten pixels, all likely on or all likely off: one cluster for each."""
    torch.manual_seed(1)
    labels = torch.arange(400) % 2
    x = dist.Bernoulli(0.1 + 0.8 * labels.float()).expand((10, 400)).sample().T
    vae = GMVAE(MixturePrior(1, 2), Bernoulli(mlp(1, 10)), DiagonalNormal(mlp(10, 2)))
    vae.prior.loc.data = torch.tensor([[-0.5], [0.5]])
    svi = SVI(
        vae.collapsed, vae.guide, torch.optim.Adam(vae.parameters(), lr=0.02), loss=Trace_ELBO()
    )
    for _ in range(150):
        svi.step(x)
    assert cluster_accuracy(vae.cluster(x).argmax(-1), labels) > 0.97


@pytest.mark.parametrize("clusters", [2, 3, 4])
def test_cluster_accuracy_is_that_of_the_best_matching(clusters):
    torch.manual_seed(clusters)
    found, labels = torch.randint(clusters, (40,)), torch.randint(3, (40,)) + 5
    size = max(clusters, 3)
    best = max(
        sum(int(p[a] + 5 == b) for a, b in zip(found.tolist(), labels.tolist(), strict=True))
        for p in permutations(range(size))
    )
    assert cluster_accuracy(found, labels) == best / 40


def test_cluster_accuracy_refuses_other_shapes():
    with pytest.raises(ValueError, match=r"one shape \(N,\), got \(3,\) and \(2,\)"):
        cluster_accuracy(torch.zeros(3), torch.zeros(2))
    with pytest.raises(ValueError, match="expected clusters and labels"):
        cluster_accuracy(torch.zeros(3, 2), torch.zeros(3, 2))
