"""Closed forms: on the linear-Gaussian model every number is known."""

import math

import pytest
import torch
from linear_gaussian import Affine, LinearGaussian, Standard
from torch import nn

from pyro_vae import SVI, VAE, Trace_ELBO, TraceMeanField_ELBO, log_likelihood, log_weights
from pyro_vae.families.normal import Normal


def test_exact_guide_has_zero_variance():
    truth = LinearGaussian()
    x = truth.data(50)
    vae = truth.vae()
    weights = log_weights(vae.model, vae.guide, x, num_samples=20)
    torch.testing.assert_close(weights, truth.log_likelihood(x).expand(20, -1), atol=1e-5, rtol=0)
    estimate = Trace_ELBO().estimate(vae.model, vae.guide, x)
    torch.testing.assert_close(
        -estimate.loss.detach(), truth.log_likelihood(x).sum(), atol=1e-5, rtol=0
    )


def test_wrong_guide_within_three_standard_errors():
    torch.manual_seed(0)
    truth = LinearGaussian()
    x = truth.data(50)
    vae = truth.vae(truth.wrong_encoder())
    w = (log_weights(vae.model, vae.guide, x, num_samples=10_000) - truth.log_likelihood(x)).exp()
    standard_error = w.std(0) / 100  # of mean w / p(x), whose expectation is 1
    assert (
        ((w.mean(0) - 1) / standard_error).abs() < 4
    ).all()  # 50 data: each within 4, together within 3
    assert abs(float((w.mean(0) - 1).sum() / standard_error.square().sum().sqrt())) < 3
    torch.manual_seed(0)
    again = log_likelihood(vae.model, vae.guide, x, num_samples=10_000, chunk_bytes=64 * 777)
    torch.testing.assert_close(again, truth.log_likelihood(x) + w.mean(0).log())


@pytest.mark.parametrize("shift", [0.0, 0.3])
@pytest.mark.parametrize("spread", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("objective", [Trace_ELBO, TraceMeanField_ELBO])
def test_log_px_is_elbo_plus_kl(objective, spread, shift):
    """E[ELBO] + KL(q to posterior) = log p(x), within 4 standard errors over 3000 draws of an ELBO
    with any guide."""
    truth = LinearGaussian()
    x = truth.data(5)
    vae = truth.vae(truth.wrong_encoder(shift, spread))
    q = vae.encoder(x)
    kl = torch.distributions.kl_divergence(
        torch.distributions.MultivariateNormal(q.loc, scale_tril=q.scale_tril), truth.posterior(x)
    )
    expected = float(truth.log_likelihood(x).sum() - kl.detach().sum())
    if objective is TraceMeanField_ELBO:  # torch knows KL(full normal to full normal) only
        vae.prior = Affine(
            torch.zeros(truth.latent, 1).double(),
            torch.zeros(truth.latent).double(),
            torch.eye(truth.latent).double(),
        )
        prior = vae.prior(torch.zeros(1).double())
        vae.prior.forward = lambda: prior
    torch.manual_seed(0)
    with torch.no_grad():
        elbos = torch.stack(
            [objective(100).estimate(vae.model, vae.guide, x).elbo for _ in range(30)]
        )
    assert abs(float(elbos.mean()) - expected) < 4 * float(elbos.std()) / math.sqrt(30) + 1e-6


def maximum_log_likelihood(x, latent):
    """Per datum, of probabilistic PCA: -1/2 (D log 2 pi + sum_{i <= q} log l_i + (D - q) log s^2 +
    D), s^2 the mean of the other l_i.

    l_i are the eigenvalues of the data's covariance (Tipping & Bishop 1999, section 3.2).
    """
    eigenvalues = torch.linalg.eigvalsh(torch.cov(x.T, correction=0)).flip(0)
    observed, noise = len(eigenvalues), eigenvalues[latent:].mean()
    log_det = eigenvalues[:latent].log().sum() + (observed - latent) * noise.log()
    return float(-0.5 * (observed * math.log(2 * math.pi) + log_det + observed))


@pytest.mark.parametrize(
    "objective", [Trace_ELBO(), Trace_ELBO(num_particles=4)], ids=["one particle", "four"]
)
def test_svi_reaches_the_maximum_likelihood_of_probabilistic_pca(objective):
    latent, observed = 3, 8
    x = LinearGaussian(latent, observed).data(300)
    torch.manual_seed(0)
    decoder = Normal(nn.Linear(latent, observed), learned=True)
    encoder = Affine(0.1 * torch.randn(latent, observed), torch.zeros(latent), torch.eye(latent))
    vae = VAE(Standard(latent), decoder, encoder).double()
    optim = torch.optim.Adam(vae.parameters(), lr=0.03)
    svi, steps = SVI(vae.model, vae.guide, optim, loss=objective), 700
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optim, steps)
    for _ in range(steps):
        svi.step(x)
        decay.step()

    W, noise = decoder.net.weight.detach(), decoder.log_scale.detach().exp()
    covariance = W @ W.T + noise.square() * torch.eye(observed).double()
    reached = float(
        torch.distributions.MultivariateNormal(decoder.net.bias.detach(), covariance)
        .log_prob(x)
        .mean()
    )
    best = maximum_log_likelihood(x, latent)
    assert best - 0.1 < reached <= best + 1e-9
    torch.manual_seed(1)
    elbo = -sum(float(svi.evaluate_loss(x)) for _ in range(20)) / 20 / len(x)
    assert (
        best - 0.1 < elbo < best + 0.01
    )  # one draw of the ELBO per datum: its spread is that of a nearly exact guide
