"""Closed forms: on the linear-Gaussian model every number is known."""

import torch
from linear_gaussian import LinearGaussian

from pyro_vae import Trace_ELBO, log_likelihood, log_weights


def test_exact_guide_has_zero_variance():
    truth = LinearGaussian()
    x = truth.data(50)
    vae = truth.vae()
    weights = log_weights(vae.model, vae.guide, x, num_samples=20)
    torch.testing.assert_close(weights, truth.log_likelihood(x).expand(20, -1), atol=1e-5, rtol=0)
    estimate = Trace_ELBO()(vae.model, vae.guide, x)
    torch.testing.assert_close(-estimate.loss.detach(), truth.log_likelihood(x).sum(), atol=1e-5, rtol=0)


def test_wrong_guide_within_three_standard_errors():
    torch.manual_seed(0)
    truth = LinearGaussian()
    x = truth.data(50)
    vae = truth.vae(truth.wrong_encoder())
    w = (log_weights(vae.model, vae.guide, x, num_samples=10_000) - truth.log_likelihood(x)).exp()
    standard_error = w.std(0) / 100  # of mean w / p(x), whose expectation is 1
    assert (((w.mean(0) - 1) / standard_error).abs() < 4).all()  # 50 data: each within 4, together within 3
    assert abs(float((w.mean(0) - 1).sum() / standard_error.square().sum().sqrt())) < 3
    torch.manual_seed(0)
    again = log_likelihood(vae.model, vae.guide, x, num_samples=10_000, chunk_size=777)
    torch.testing.assert_close(again, truth.log_likelihood(x) + w.mean(0).log())
