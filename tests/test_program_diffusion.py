"""Diffusion: exact on Gaussian data, one random step against the whole sum, and the script."""

import json
import math

import pyro.distributions as dist
import pytest
import torch
from running import module
from torch import nn

from pyro_vae import IWAE, SVI, DiagonalNormal, TraceMeanField_ELBO, log_weights, mlp
from pyro_vae.families import Levels, NearestLevel, Noising, log_odds
from pyro_vae.models import Diffusion
from pyro_vae.nets import Denoiser, ResidualMLP, Symmetric, UNet, WithNoiseLevel

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


@pytest.mark.parametrize("levels", [1, 4])
def test_levels_are_moments_by_brute_force(levels):
    """p(v_d | z) from the densities of all levels, for odds of the data and of a network."""
    torch.manual_seed(5)
    odds, net = torch.randn(levels, DIM).double(), nn.Linear(DIM + 1, levels * DIM).double()
    z, log_snr = torch.randn(6, DIM).double(), torch.linspace(-3, 4, 6).double().unsqueeze(-1)
    v = torch.linspace(-1, 1, levels + 1).double()
    alpha, sigma = log_snr.sigmoid().sqrt(), (-log_snr).sigmoid().sqrt()
    total = odds + net(torch.cat([z, log_snr], -1)).view(6, levels, DIM)
    for d in range(DIM):
        prior = torch.cat([torch.zeros(6, 1).double(), total[:, :, d]], -1).softmax(-1)
        p = prior * dist.Normal(alpha * v, sigma).log_prob(z[:, d, None]).exp()
        p = p / p.sum(-1, keepdim=True)
        mean = (p * v).sum(-1)
        ours = Levels(net, odds).double()(z, log_snr)
        torch.testing.assert_close(ours.mean[:, d], mean)
        torch.testing.assert_close(ours.variance[:, d], (p * v**2).sum(-1) - mean**2)


def test_bayes_rule_is_exact_for_independent_pixels():
    """With the odds of the data and no network, every weight tends to p(x) as the steps grow."""
    p = torch.tensor([0.1, 0.5, 0.8]).double()
    torch.manual_seed(6)
    x = torch.bernoulli(p.expand(1000, -1))
    log_px = dist.Bernoulli(p).to_event(1).log_prob(x)
    gaps, errors = [], []
    for steps in (5, 20, 160):
        noising = Noising(torch.linspace(3, -12, steps).double())
        denoiser = Levels(Zero(DIM), p.logit().unsqueeze(0))
        chain = Diffusion(denoiser, NearestLevel(1, 3.0), Symmetric(), noising, DIM).double()
        gap = log_px - log_weights(chain.model, chain.guide, x, num_samples=1)[0]
        gaps.append(gap.mean().item())
        errors.append(gap.std().item() / math.sqrt(len(x)))
    assert gaps[0] > 2 * gaps[1] > 4 * errors[1]
    assert abs(gaps[2]) < 5 * errors[2] < 0.02


class Zero(nn.Module):
    """A network that knows nothing."""

    def __init__(self, outputs):
        super().__init__()
        self.outputs = outputs

    def forward(self, h):
        return h.new_zeros(*h.shape[:-1], self.outputs)


def test_log_odds_are_laplaces_rule():
    x = torch.tensor([[0.0, 2], [1, 2], [1, 2]])
    expected = torch.tensor([[3 / 2, 1.0], [1 / 2, 4.0]])
    torch.testing.assert_close(log_odds(x, 2).exp(), expected)


@pytest.mark.parametrize("levels", [1, 3])
def test_u_net_reads_image_and_noise(levels):
    """Its first outputs are 0; then all weights have gradients, and all inputs an effect."""
    torch.manual_seed(7)
    net = WithNoiseLevel(UNet((1, 8, 12), 6, levels * 96, channels=4, depth=1), 3).double()
    h = torch.randn(2, 5, 97).double().requires_grad_()
    assert net(h).shape == (2, 5, levels * 96)
    assert not net(h).any()
    for p in net.parameters():
        nn.init.normal_(p, std=0.3)
    net(h).square().sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in net.parameters())
    assert h.grad.all()


def test_a_step_compiles(traced_only):
    """Bayes' rule, both ends and a random step are one graph, which lowers the loss."""
    torch.manual_seed(8)
    net = WithNoiseLevel(ResidualMLP(DIM + 4, 8, DIM, depth=1), 2)
    noising = Noising(torch.linspace(3, -3, 4))
    denoiser = Levels(net, torch.zeros(1, DIM))
    chain = Diffusion(denoiser, NearestLevel(1, 3.0), Symmetric(), noising, DIM)
    adam = torch.optim.Adam(chain.parameters(), lr=1e-2)
    svi = SVI(chain.step_model, chain.step_guide, adam, TraceMeanField_ELBO(), compile=True)
    x = torch.tensor([[0.0, 1, 1]]).repeat(64, 1)
    losses = [svi.step(x).item() for _ in range(40)]
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])


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
    with pytest.raises(ValueError, match=r"expected log_odds \(levels, D\), got \(3,\)"):
        Levels(nn.Identity(), torch.zeros(3))
    with pytest.raises(ValueError, match=r"expected height and width in multiples of 4"):
        UNet((1, 8, 10), conditions=2)
    with pytest.raises(ValueError, match=r"got global sites \['u'\]"):
        log_weights(chain.step_model, chain.step_guide, x, num_samples=2)
    with pytest.raises(ValueError, match=r"got global sites \['u'\]"):
        IWAE(2).estimate(chain.step_model, chain.step_guide, x)


def test_script(tmp_path):
    """Two epochs on the digits: a bound, its error, and the exact one."""
    main = module("programs/diffusion").main
    main.__globals__["GAUSSIAN_STEPS"] = (2, 4)
    options = "--dataset digits --highest 8 --epochs 2 --channels 8 --num-steps 5 --passes 2"
    options += " --bound-steps 5 10"
    main(["--output-dir", str(tmp_path), *options.split(), "--num-pictures", "4", "--no-progress"])
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["Gaussian, posterior variance, gap in bits per dimension"] < 0.01
    assert [row["steps"] for row in result["bounds"]] == [5, 10]
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
