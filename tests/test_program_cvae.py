"""The conditional VAE: its density in closed form, its baseline, and the script."""

import json
import sys

import pyro
import torch
from running import script
from torch import nn

from pyro_vae import Bernoulli, DiagonalNormal, Normal, Trace_ELBO, load_data, log_likelihood, mlp
from pyro_vae.models import CVAE

GIVEN, HIDDEN, LATENT = 2, 3, 2
main = script("programs/cvae")


def linear_cvae():
    """Linear and Gaussian: y given x is normal."""
    torch.manual_seed(0)
    prior = nn.Linear(GIVEN + HIDDEN, 2 * LATENT)
    encoder = nn.Linear(GIVEN + 2 * HIDDEN, 2 * LATENT)
    with torch.no_grad():
        prior.weight[LATENT:] = 0  # a scale that does not depend on x
        encoder.weight[LATENT:] = 0
        encoder.bias[LATENT:] = 1.5  # wide, so that the weights have no heavy tail
    return CVAE(
        DiagonalNormal(prior),
        Normal(nn.Linear(GIVEN + HIDDEN + LATENT, HIDDEN), scale=0.8),
        DiagonalNormal(encoder),
        Normal(nn.Linear(GIVEN, HIDDEN), scale=1.0),
    )


def test_the_conditional_density_is_that_of_the_closed_form():
    """K = 20000; the Monte Carlo error is below 0.01 nats."""
    cvae = linear_cvae()
    x, y = torch.randn(4, GIVEN), torch.randn(4, HIDDEN)
    with torch.no_grad():
        given = torch.cat([x, cvae.guess(x)], -1)
        loc, log_variance = cvae.prior.net(given).chunk(2, -1)
        net = cvae.decoder.net
        W = net.weight[:, -LATENT:]
        mean = net(torch.cat([given, loc], -1))
        covariance = 0.64 * torch.eye(HIDDEN) + W @ torch.diag(log_variance[0].exp()) @ W.T
        expected = torch.distributions.MultivariateNormal(mean, covariance).log_prob(y)
    torch.manual_seed(1)
    ours = log_likelihood(cvae.model, cvae.guide, x, y, num_samples=20_000)
    torch.testing.assert_close(ours, expected, atol=0.03, rtol=0)


def test_the_baseline_is_trained_by_its_own_program_alone():
    cvae = linear_cvae()
    x, y = torch.randn(4, GIVEN), torch.randn(4, HIDDEN)
    Trace_ELBO().estimate(cvae.model, cvae.guide, x, y).loss.backward()
    assert all(p.grad is None for p in cvae.baseline.parameters())
    assert all(p.grad is not None for p in cvae.prior.parameters())
    cvae.zero_grad()
    regression = Trace_ELBO().estimate(cvae.regression, lambda x, y: None, x, y)
    torch.testing.assert_close(regression.loss, -cvae.baseline(x).log_prob(y).sum())
    regression.loss.backward()
    assert all(p.grad is not None for p in cvae.baseline.parameters())
    assert all(p.grad is None for p in cvae.decoder.parameters())


def test_completes_by_draws_of_the_latent():
    pyro.set_rng_seed(0)
    nets = mlp(GIVEN + HIDDEN, 2 * LATENT), mlp(GIVEN + HIDDEN + LATENT, HIDDEN)
    encoder, baseline = mlp(GIVEN + 2 * HIDDEN, 2 * LATENT), mlp(GIVEN, HIDDEN)
    cvae = CVAE(
        DiagonalNormal(nets[0]), Bernoulli(nets[1]), DiagonalNormal(encoder), Bernoulli(baseline)
    )
    x = torch.ones(200, GIVEN)
    assert set(cvae.complete(x).unique().tolist()) == {0.0, 1.0}
    means = cvae.complete(x, mean=True)
    assert ((means > 0) & (means < 1)).all()
    assert means.std(0).min() > 0


def test_quadrants_take_an_image_apart_and_join_it():
    module = sys.modules["scripts_programs/cvae"]
    images = load_data("digits", pixels="threshold").test
    sizes = []
    for number in (1, 2, 3):
        data = module.Quadrants(images, number)
        x, y = data.batch(torch.arange(5))
        assert data.joined(x, y).equal(images.batch(torch.arange(5)))
        sizes.append(x.shape[1])
    assert sizes == [16, 32, 48]
    corner = ~module.Quadrants(images, 1).hidden().view(8, 8)
    assert corner[4:, :4].all()
    assert corner.sum() == 16


def test_the_script_trains_both_and_compares(tmp_path, capsys):
    main(
        *("--data", "digits", "--observed", 1, "--epochs", 2, "--baseline-epochs", 2),
        *("--hidden", 8, "--latents", 2, "--num-samples", 3, "--num-test", 20),
        *("--no-compile", "--no-progress", "--output-dir", tmp_path),
    )
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["gain_1"] == result["gain_1"]
    difference = result["baseline_1"] - result["cvae_1"]
    assert abs(result["gain_1"] - difference) < 1e-4
    assert "100.4 71.8" in capsys.readouterr().out
    assert (tmp_path / "figures" / "completions-1.png").is_file()
