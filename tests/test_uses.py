"""Anomaly scores, imputation, denoising, probes."""

import os

import pyro
import pyro.distributions as dist
import pytest
import torch
from linear_gaussian import LinearGaussian
from pyro_examples import ExampleVAE
from torch import Tensor, nn

from pyro_vae import SVI, VAE, Bernoulli, DiagonalNormal, StandardNormal, Trace_ELBO, mlp
from pyro_vae.evaluation.anomaly import auroc, likelihood_regret, surprise
from pyro_vae.evaluation.classifiers import linear_probe, nearest_neighbours
from pyro_vae.evaluation.imputation import bit_flips, denoise, impute
from pyro_vae.evaluation.suboptimality import FullRankLocal, LocalFit


class IndependentPixels(nn.Module):
    """The linear-Gaussian decoder, pixel by pixel."""

    def __init__(self, truth: LinearGaussian) -> None:
        super().__init__()
        self.truth = truth

    def forward(self, z: Tensor) -> dist.Distribution:
        return dist.Normal(z @ self.truth.W.T + self.truth.mu, self.truth.noise).to_event(1)


@pytest.fixture
def truth() -> LinearGaussian:
    torch.manual_seed(0)
    return LinearGaussian(latent=2, observed=5)


def pixelwise(truth: LinearGaussian) -> VAE:
    """A guide wide enough for the posterior of a few pixels."""
    vae = truth.vae(truth.wrong_encoder(shift=0.0, spread=3.0))
    vae.decoder = IndependentPixels(truth)
    return vae


def conditional(truth: LinearGaussian, x: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and covariance of x[~seen] given x[seen], in closed form."""
    S = truth.marginal_cov
    gain = torch.linalg.solve(S[seen][:, seen], S[seen][:, ~seen]).T
    return truth.mu[~seen] + (x[:, seen] - truth.mu[seen]) @ gain.T, S[~seen][:, ~seen] - gain @ S[
        seen
    ][:, ~seen]


# Imputation


@pytest.mark.parametrize("chunk_draws", [100_000, 3000])
def test_imputed_means_are_conditional_means(truth, chunk_draws):
    vae, x, seen = pixelwise(truth), truth.data(8), torch.tensor([True, False, True, True, False])
    fill = conditional(truth, x, seen)[0].new_zeros(5) + truth.mu
    filled = impute(
        vae.model,
        vae.guide,
        x,
        seen.expand(8, -1),
        num_samples=20_000,
        fill=fill,
        chunk_draws=chunk_draws,
    )
    mean, covariance = conditional(truth, x, seen)
    torch.testing.assert_close(filled[:, seen], x[:, seen])
    assert float((filled[:, ~seen] - mean).abs().max()) < 0.15 * float(
        covariance.diagonal().max().sqrt()
    )  # ESS above 1000


def test_imputed_draws_have_the_conditional_covariance(truth):
    vae, seen = pixelwise(truth), torch.tensor([True, False, True, True, False])
    x = truth.data(1).expand(3000, -1)
    draws = impute(
        vae.model, vae.guide, x, seen.expand(3000, -1), num_samples=200, fill=truth.mu, sample=True
    )
    mean, covariance = conditional(truth, x, seen)
    assert float((draws[:, ~seen].T.cov() - covariance).abs().max()) < 0.12 * float(
        covariance.diagonal().max()
    )
    assert float((draws[:, ~seen].mean(0) - mean[0]).abs().max()) < 0.1 * float(
        covariance.diagonal().max().sqrt()
    )


def test_draws_come_from_all_chunks():
    """From the prior, 400 chunks of two samples: the first alone would miss the narrow posterior
    by far."""
    torch.manual_seed(0)
    truth = LinearGaussian(latent=2, observed=5, noise=0.15)
    vae, x, seen = pixelwise(truth), truth.data(2), torch.tensor([True, False, True, True, False])
    draws = impute(
        vae.model,
        lambda x: prior_guide(x, 2),
        x,
        seen.expand(2, -1),
        num_samples=800,
        sample=True,
        chunk_draws=2,
    )
    mean, covariance = conditional(truth, x, seen)
    assert float(((draws[:, ~seen] - mean) / covariance.diagonal().sqrt()).abs().max()) < 4


def test_hidden_values_do_not_matter(truth):
    vae, x = pixelwise(truth), truth.data(4)
    seen = torch.rand(4, 5) < 0.5
    torch.manual_seed(0)
    clean = impute(vae.model, vae.guide, x, seen, num_samples=50)
    torch.manual_seed(0)
    torch.testing.assert_close(
        impute(vae.model, vae.guide, x.where(seen, torch.nan), seen, num_samples=50), clean
    )


def test_nothing_hidden_and_everything_hidden(truth):
    vae, x = pixelwise(truth), truth.data(4)
    torch.testing.assert_close(
        impute(vae.model, vae.guide, x, torch.ones_like(x, dtype=torch.bool), num_samples=5), x
    )
    blind = impute(
        vae.model,
        lambda x: prior_guide(x, 2),
        x,
        torch.zeros_like(x, dtype=torch.bool),
        num_samples=20_000,
    )
    torch.testing.assert_close(blind, truth.mu.expand(4, -1), atol=0.1, rtol=0)


def prior_guide(x: Tensor, latent: int) -> None:
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x.new_zeros(len(x), latent), 1.0).to_event(1))


def test_pyros_example_imputes_and_denoises_images():
    torch.manual_seed(0)
    vae = ExampleVAE().double()
    x = vae.images()
    seen = torch.rand(x.shape) < 0.5
    filled = impute(vae.model, vae.guide, x, seen, num_samples=50)
    assert filled.shape == x.shape
    assert bool(((filled >= 0) & (filled <= 1)).all())
    assert set(
        impute(vae.model, vae.guide, x, seen, num_samples=50, sample=True).unique().tolist()
    ) == {0.0, 1.0}
    assert denoise(vae.model, vae.guide, x, bit_flips(0.1), num_samples=50).shape == x.shape


def test_denoising_is_the_posterior_mean(truth):
    vae, x = pixelwise(truth), truth.data(8)
    mean = denoise(vae.model, vae.guide, x, num_samples=20_000)
    torch.testing.assert_close(
        mean, truth.posterior(x).mean @ truth.W.T + truth.mu, atol=0.05, rtol=0
    )


def test_flips_are_undone_as_by_enumeration():
    """One binary latent behind eight pixels, seen through flips: P(z | x) by Bayes."""
    weight = torch.tensor([[-3.0] * 8, [3.0] * 8], dtype=torch.float64)

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Bernoulli(x.new_full((len(x),), 0.5)))
            pyro.sample("x", dist.Bernoulli(logits=weight[z.long()]).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Bernoulli(x.new_full((len(x),), 0.5)))

    torch.manual_seed(0)
    x = torch.tensor([[1.0, 1, 1, 1, 1, 0, 0, 0], [0.0, 0, 0, 0, 0, 0, 1, 1]], dtype=torch.float64)
    p = 0.3 + 0.4 * torch.sigmoid(weight)
    posterior = torch.distributions.Bernoulli(p).log_prob(x.unsqueeze(1)).sum(-1).softmax(-1)
    expected = posterior @ torch.sigmoid(weight)
    torch.testing.assert_close(
        denoise(model, guide, x, bit_flips(0.3), num_samples=5000), expected, atol=0.03, rtol=0
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda vae, x: impute(vae.model, vae.guide, x, x[:1] > 0),
            "expected a boolean mask of shape \\(4, 5\\), got torch.bool of \\(1, 5\\)",
        ),
        (lambda vae, x: impute(vae.model, vae.guide, x, x), "expected a boolean mask of shape"),
        (
            lambda vae, x: impute(vae.model, vae.guide, x, x > 0, num_samples=0),
            "expected num_samples of at least 1, got 0",
        ),
        (
            lambda vae, x: impute(vae.model, vae.guide, x, x > 0),
            "expected pixels that are independent given z, got MultivariateNormal",
        ),
        (lambda vae, x: bit_flips(0.7), "expected a rate of flips in \\[0, 0.5\\], got 0.7"),
    ],
)
def test_errors(truth, call, message):
    with pytest.raises(ValueError, match=message):
        call(truth.vae(), truth.data(4))


# Anomaly scores


def test_regret_is_the_divergence_from_the_posterior(truth):
    vae, x = truth.vae(truth.wrong_encoder(shift=0.4, spread=1.0)), truth.data(20)
    regret = likelihood_regret(
        vae.model, vae.guide, x, fit=LocalFit(FullRankLocal), num_samples=2000
    )
    kl = torch.distributions.kl_divergence(vae.encoder(x), truth.posterior(x)).detach()
    torch.testing.assert_close(regret.mean(), kl.mean(), rtol=0.05, atol=0)


def test_surprise_finds_outliers(truth):
    vae, x = truth.vae(), truth.data(100)
    scores = (
        surprise(vae.model, vae.guide, x, num_samples=5),
        surprise(vae.model, vae.guide, x + 5, num_samples=5),
    )
    torch.testing.assert_close(scores[0], -truth.log_likelihood(x))
    assert auroc(*scores) > 0.95
    assert auroc(scores[0], scores[0]) == 0.5
    assert auroc(*scores) + auroc(*scores[::-1]) == pytest.approx(1)


@pytest.mark.slow
def test_raw_likelihood_fails_where_regret_does_not():
    """Trained on MNIST: noise is found out by log p(x), but thinned digits are likelier than the
    digits themselves."""
    root = os.environ.get("PYRO_VAE_DATA")
    if not root:
        pytest.skip("set PYRO_VAE_DATA to a folder with torchvision's MNIST")
    from pyro_vae.data.splits import load_data

    torch.manual_seed(0)
    train, _, test = load_data("mnist", root)
    vae = VAE(StandardNormal(20), Bernoulli(mlp(20, 200, 784)), DiagonalNormal(mlp(784, 200, 40)))
    svi = SVI(vae.model, vae.guide, torch.optim.Adam(vae.parameters(), lr=2e-3), loss=Trace_ELBO())
    for indices in torch.randperm(len(train))[:30_000].split(128):
        svi.step(train.batch(indices))
    grey = (test.values[:40].float() / test.levels).reshape(-1, 1, 28, 28)
    thin = -nn.functional.max_pool2d(-grey, 3, 1, 1)
    familiar, noise, thinned = (
        torch.bernoulli(image.flatten(1)) for image in (grey, torch.full_like(grey, 0.5), thin)
    )
    scores = [surprise(vae.model, vae.guide, x) for x in (familiar, noise, thinned)]
    regrets = [
        likelihood_regret(vae.model, vae.guide, x, fit=LocalFit(num_steps=100, num_particles=4))
        for x in (familiar, noise, thinned)
    ]
    assert auroc(scores[0], scores[1]) > 0.99
    assert auroc(scores[0], scores[2]) < 0.3  # the known failure
    assert auroc(regrets[0], regrets[2]) > auroc(scores[0], scores[2])


# Probes


@pytest.mark.parametrize("probe", [linear_probe, nearest_neighbours])
def test_probes_tell_separate_classes_and_not_noise(probe):
    torch.manual_seed(0)
    labels = torch.arange(400) % 4
    centres = 5 * torch.eye(4)[labels]
    z, noise = centres + torch.randn(400, 4), torch.randn(400, 4)
    assert probe(z[:200], labels[:200], z[200:], labels[200:]) > 0.95
    assert probe(noise[:200], labels[:200], noise[200:], labels[200:]) < 0.4
