"""Diffusion: exact on Gaussian data, one random step against the whole sum, and the script."""

import json
import math

import pyro.distributions as dist
import pytest
import torch
from running import module
from torch import nn

from pyro_vae import IWAE, DiagonalNormal, TraceMeanField_ELBO, log_weights, mlp
from pyro_vae.families import NearestLevel, Noising
from pyro_vae.models import Diffusion
from pyro_vae.nets import Denoiser, ResidualMLP, Symmetric

DIM = 3


def gaussian(steps, spread=True):
    """Data of a Normal with its best denoiser, and log p(x)."""
    parts = vars(module("programs/diffusion"))
    loc, scale = torch.tensor([0.5, -1.0, 0.2]).double(), torch.tensor([0.7, 0.4, 1.5]).double()
    noising = Noising(torch.linspace(10, -12, steps).double())
    decoder = parts["AtLevel"](parts["BestDenoiser"](loc, scale, True), noising.log_snr[:1])
    denoiser = parts["BestDenoiser"](loc, scale, spread)
    torch.manual_seed(0)
    x = loc + scale * torch.randn(64, DIM).double()
    chain = Diffusion(denoiser, decoder, nn.Identity(), noising, DIM)
    return chain, x, dist.Normal(loc, scale).to_event(1).log_prob(x)


@pytest.mark.parametrize("steps", [2, 7])
def test_exact_on_gaussian_data(steps):
    """With the variance of the best denoiser every weight is p(x), but for the noise at the end."""
    chain, x, log_px = gaussian(steps)
    weights = log_weights(chain.model, chain.guide, x, num_samples=3)
    torch.testing.assert_close(weights, log_px.expand(3, -1), atol=0.03, rtol=0)
    bits = (log_px - weights).mean() / (math.log(2) * DIM)
    assert abs(bits) < 0.01


def test_without_the_variance_the_gap_closes_with_the_steps():
    gaps = []
    for steps in (20, 40, 80):
        chain, x, log_px = gaussian(steps, spread=False)
        weights = log_weights(chain.model, chain.guide, x, num_samples=1)
        gaps.append((log_px - weights).mean().item())
    assert gaps[0] > 1.5 * gaps[1] > 2 * gaps[2] > 0


@pytest.fixture
def chain():
    """Binary data, untrained weights."""
    torch.manual_seed(1)
    body = ResidualMLP(DIM + 4, 8, 2 * DIM, depth=1)
    nn.init.normal_(body.last.weight, std=0.5)
    noising = Noising(torch.linspace(3, -3, 4))
    denoiser = DiagonalNormal(Denoiser(body, frequencies=2))
    return Diffusion(denoiser, NearestLevel(1, 3.0), Symmetric(), noising, DIM).double()


def test_a_random_step_stands_for_the_sum(chain):
    """Loss and gradients agree in the mean: 5 standard errors of 24 estimates each."""
    x = torch.tensor([[0, 1, 1], [1, 1, 0], [0, 0, 0]]).double().repeat(100, 1)
    parameters = list(chain.parameters())

    def estimates(model, guide):
        draws = []
        for _ in range(24):
            loss = TraceMeanField_ELBO().estimate(model, guide, x).loss / len(x)
            grads = torch.autograd.grad(loss, parameters)
            draws.append(torch.cat([loss.detach().view(1), *(g.flatten() for g in grads)]))
        draws = torch.stack(draws)
        return draws.mean(0), draws.var(0) / len(draws)

    torch.manual_seed(2)
    whole, error = estimates(chain.model, chain.guide)
    step, step_error = estimates(chain.step_model, chain.step_guide)
    gap = (whole - step).abs()
    assert (gap < 5 * (error + step_error).sqrt() + 1e-6).all()
    assert step_error[0].sqrt() < 0.2


def test_steps_are_even_over_the_batch(chain):
    steps = chain.random_steps(torch.zeros(300, DIM))
    assert torch.bincount(steps).tolist() == [0, 0, 100, 100, 100]


def test_posterior_is_that_of_the_chain():
    """q(z_s | z_t, v) q(z_t | v) = q(z_t | z_s) q(z_s | v): the same joint density."""
    noising = Noising(torch.linspace(2, -2, 3).double())
    torch.manual_seed(3)
    v, z_s, z_t = torch.randn(3, 5, DIM).double()
    t = torch.full((5,), 3)
    alpha, alpha_s = (noising.level(i).sigmoid().sqrt() for i in (t, t - 1))
    step = alpha / alpha_s
    variance = (-noising.level(t)).sigmoid() - step**2 * (-noising.level(t - 1)).sigmoid()
    forward = dist.Normal(step * z_s, variance.sqrt()).to_event(1)
    torch.testing.assert_close(
        noising.before(z_t, t, v).log_prob(z_s) + noising(v, t).log_prob(z_t),
        forward.log_prob(z_t) + noising(v, t - 1).log_prob(z_s),
    )


def test_nearest_level_is_bayes_rule():
    log_snr = 1.5
    z = torch.linspace(-2, 2, 7).double().unsqueeze(-1)
    alpha, sigma = torch.tensor([log_snr, -log_snr]).double().sigmoid().sqrt()
    levels = torch.linspace(-1, 1, 5).double()
    truth = dist.Normal(alpha * levels, sigma).log_prob(z).log_softmax(-1)
    p = NearestLevel(4, log_snr).double()(z)
    ours = torch.stack([p.log_prob(torch.full((7, 1), float(k))) for k in range(5)], -1)
    torch.testing.assert_close(ours, truth)


def test_samples_have_the_values_of_the_data(chain):
    x = chain.sample(20)
    assert x.shape == (20, DIM)
    assert set(x.unique().tolist()) <= {0, 1}


def test_refusals(chain):
    x = torch.zeros(3, DIM).double()
    for log_snr in (torch.tensor([1.0]), torch.tensor([0.0, 1.0])):
        with pytest.raises(ValueError, match=r"expected log_snr \(T,\) of at least two steps"):
            Noising(log_snr)
    with pytest.raises(ValueError, match=r"expected at least one level and a finite log_snr"):
        NearestLevel(0, 1.0)
    with pytest.raises(ValueError, match=r"got global sites \['u'\]"):
        log_weights(chain.step_model, chain.step_guide, x, num_samples=2)
    with pytest.raises(ValueError, match=r"got global sites \['u'\]"):
        IWAE(2).estimate(chain.step_model, chain.step_guide, x)


def test_script(tmp_path):
    """Two epochs on the digits: a bound, its error, and the exact one."""
    main = module("programs/diffusion").main
    main.__globals__["GAUSSIAN_STEPS"] = (2, 4)
    options = "--dataset digits --highest 8 --epochs 2 --hidden 16 --num-steps 5 --passes 2"
    main(["--output-dir", str(tmp_path), *options.split(), "--num-pictures", "4", "--no-progress"])
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["Gaussian, posterior variance, gap in bits per dimension"] < 0.01
    assert 1 < result["bound, bits per dimension"] < 20
    assert (tmp_path / "figures" / "samples.png").is_file()


def test_mlp_as_a_denoiser_trains():
    """Any family with a mean and a variance will do."""
    torch.manual_seed(4)
    denoiser = DiagonalNormal(mlp(DIM + 1, 8, 2 * DIM))
    noising = Noising(torch.linspace(3, -3, 4))
    chain = Diffusion(denoiser, NearestLevel(1, 3.0), Symmetric(), noising, DIM)
    x = torch.tensor([[0.0, 1, 1]]).repeat(8, 1)
    loss = TraceMeanField_ELBO().estimate(chain.step_model, chain.step_guide, x).loss
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in denoiser.parameters())
