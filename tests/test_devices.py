"""What holds on every device: on the CPU, where graphs are traced only, and on CUDA."""

from contextlib import nullcontext

import pytest
import torch
from linear_gaussian import LinearGaussian
from running import traced

from pyro_vae import (
    SVI,
    VAE,
    Bernoulli,
    DiagonalNormal,
    StandardNormal,
    Trace_ELBO,
    fit,
    log_likelihood,
    mlp,
)
from pyro_vae.families.delta import Delta
from pyro_vae.nets import BFloat16
from pyro_vae.programs.compiler import REPEATING, compile_graph

missing = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
DEVICES = ["cpu", pytest.param("cuda", marks=[pytest.mark.cuda, missing])]
D, Z, B = 40, 5, 64


@pytest.fixture(params=DEVICES)
def device(request):
    if request.param == "cuda" and torch.__version__.startswith(REPEATING):
        pytest.skip("this version is refused: its compiled random numbers repeat")
    with traced() if request.param == "cpu" else nullcontext():
        yield torch.device(request.param)


def images(device, number=B):
    torch.manual_seed(0)
    return (torch.rand(number, D) < 0.3).float().to(device)


def vae_of(device, guide=DiagonalNormal, wrap=lambda net: net):
    torch.manual_seed(0)
    encoder = wrap(mlp(D, 32, guide.outputs(Z)))
    return VAE(StandardNormal(Z), Bernoulli(wrap(mlp(Z, 32, D))), guide(encoder)).to(device)


def losses_of(vae, x, compile, steps, lr=1e-2):
    optim = torch.optim.Adam(vae.parameters(), lr=lr)
    svi = SVI(vae.model, vae.guide, optim, Trace_ELBO(), compile=compile)
    torch.manual_seed(1)
    return torch.stack([svi.step(x) for _ in range(steps)]).cpu() / len(x)


def test_steps_without_draws_are_those_of_the_eager_step(device):
    """Ten steps as a graph with the update of Adam: the same losses and weights."""
    x = images(device)
    vaes = [vae_of(device, Delta) for _ in range(2)]
    losses = [losses_of(vae, x, compile, 10) for vae, compile in zip(vaes, (0, 1), strict=True)]
    torch.testing.assert_close(*losses, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(*(vae.state_dict() for vae in vaes), rtol=1e-3, atol=1e-3)


def test_steps_draw_anew_and_agree_in_the_mean(device):
    """Within 4 standard errors of the difference; 300 losses of one VAE that does not move."""
    x = images(device)
    eager, graph = (losses_of(vae_of(device), x, compile, 300, lr=0.0) for compile in (0, 1))
    error = ((eager.var() + graph.var()) / 300) ** 0.5
    assert abs(float(eager.mean() - graph.mean())) < 4 * error
    assert len(graph.unique()) > 285


def test_noise_of_a_graph_has_its_moments_and_no_duplicates(device):
    """Of n float32 normals about n^2 / 2^26 pairs are equal; blocks that repeat give n / 2."""
    number = 1 << 14
    inputs = [torch.zeros(number, device=device)]
    draw = compile_graph(lambda x: [x + torch.randn_like(x)], inputs)
    torch.manual_seed(0)
    draws = torch.cat([draw(*inputs)[0] for _ in range(4)]).cpu().double()
    n = len(draws)
    assert n - len(draws.unique()) < 0.01 * n
    assert abs(float(draws.mean())) < 4 / n**0.5
    assert abs(float(draws.var()) - 1) < 4 * (2 / n) ** 0.5
    assert abs(float(draws.pow(4).mean()) - 3) < 4 * (96 / n) ** 0.5


def test_bfloat16_learns_what_float32_learns(device):
    """The loss after 60 steps, within 3 %: bf16 has 8 bits of precision."""
    x = images(device)
    wide, narrow = (
        losses_of(vae_of(device, wrap=wrap), x, True, 60)[-10:].mean()
        for wrap in (lambda net: net, BFloat16)
    )
    torch.testing.assert_close(narrow, wide, rtol=0.03, atol=0)


@pytest.mark.parametrize("compile", [False, True])
def test_log_likelihood_is_the_closed_form(device, compile):
    """K = 20,000, in float64, where the guide is wrong."""
    truth = LinearGaussian(latent=2, observed=4, noise=1.0)
    vae, x = truth.vae(truth.wrong_encoder()), truth.data(6)
    vae.prior = StandardNormal(2)
    vae.to(device=device, dtype=torch.float64)
    torch.manual_seed(0)
    found = log_likelihood(vae.model, vae.guide, x.to(device), num_samples=20_000, compile=compile)
    torch.testing.assert_close(found.cpu(), truth.log_likelihood(x), rtol=0, atol=0.05)


def test_fit_resumes_on_the_device(device, tmp_path):
    """Data, weights and random numbers of the device: two runs of two epochs are one of four."""

    def run(folder, epochs, resume=False):
        vae = vae_of(device)
        svi = SVI(vae.model, vae.guide, torch.optim.Adam(vae.parameters(), lr=1e-2), Trace_ELBO())
        options = {"batch_size": 32, "seed": 0, "progress": False}
        fit(svi, images(device, 160), epochs=epochs, folder=folder, resume=resume, **options)
        return vae.state_dict()

    whole = run(tmp_path / "whole", 4)
    run(tmp_path / "parts", 2)
    torch.testing.assert_close(run(tmp_path / "parts", 4, resume=True), whole, rtol=0, atol=0)
