"""The heart: shapes, means and samples, and what it refuses."""

import math

import pyro
import pytest
import torch
from programs import LATENT, PIXELS, binary, plain_vae
from pyro import poutine
from torch import nn

from pyro_vae import (
    SVI,
    VAE,
    Bernoulli,
    DiagonalNormal,
    StandardNormal,
    Trace_ELBO,
    log_likelihood,
    mlp,
)
from pyro_vae.families.bernoulli import ContinuousBernoulli
from pyro_vae.families.counts import Binomial
from pyro_vae.families.logistic import DiscretizedLogistic
from pyro_vae.families.normal import Normal

DECODERS = {
    "Bernoulli": lambda: Bernoulli(mlp(LATENT, 16, PIXELS)),
    "ContinuousBernoulli": lambda: ContinuousBernoulli(mlp(LATENT, 16, PIXELS)),
    "Normal": lambda: Normal(mlp(LATENT, 16, PIXELS), scale=0.1),
    "Normal, learned": lambda: Normal(mlp(LATENT, 16, PIXELS), learned=True),
    "Binomial": lambda: Binomial(mlp(LATENT, 16, PIXELS), 16),
    "DiscretizedLogistic": lambda: DiscretizedLogistic(mlp(LATENT, 16, 2 * PIXELS)),
    "user's own": lambda: Own(),
}


class Own(nn.Module):
    """A conditional that somebody wrote."""

    def __init__(self):
        super().__init__()
        self.net = nn.Linear(LATENT, PIXELS)

    def forward(self, z):
        return pyro.distributions.Laplace(self.net(z), 1.0).to_event(1)


@pytest.fixture(params=DECODERS.values(), ids=DECODERS)
def vae(request):
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.LayerNorm(PIXELS), mlp(PIXELS, 16, 2 * LATENT)
    )  # whatever the range of the pixels
    return VAE(StandardNormal(LATENT), request.param(), DiagonalNormal(net))


def test_sites_and_plate():
    module, x = plain_vae(), binary()
    with pyro.get_param_store().scope():
        model, guide = (
            poutine.trace(program).get_trace(x) for program in (module.model, module.guide)
        )
    for trace, names in ((model, {"z", "x"}), (guide, {"z"})):
        sites = {
            name: site
            for name, site in trace.nodes.items()
            if site["type"] == "sample" and name != "data"
        }
        assert sites.keys() == names
        assert all(
            [frame.name for frame in site["cond_indep_stack"]] == ["data"]
            for site in sites.values()
        )
        assert all(site["fn"].batch_shape == (len(x),) for site in sites.values())
    assert model.nodes["x"]["is_observed"]
    assert model.nodes["x"]["value"] is x


def test_shapes(vae):
    for n in (1, 5):
        x = vae.sample(n)
        assert x.shape == vae.sample(n, mean=True).shape == (n, PIXELS)
        for mean in (True, False):
            assert vae.encode(x, mean=mean).shape == (n, LATENT)
            assert vae.reconstruct(x, mean=mean).shape == (n, PIXELS)


def test_any_leading_dimensions(vae):
    x = vae.sample(6).reshape(2, 3, PIXELS)
    assert vae.encode(x).shape == (2, 3, LATENT)
    assert vae.reconstruct(x).shape == (2, 3, PIXELS)


def test_samples_lie_in_the_support_and_train(vae):
    torch.manual_seed(0)
    x = vae.sample(20)
    loss = SVI(vae.model, vae.guide, torch.optim.Adam(vae.parameters()), loss=Trace_ELBO()).step(x)
    assert torch.isfinite(loss)
    assert torch.isfinite(log_likelihood(vae.model, vae.guide, x, num_samples=5)).all()


def test_means_are_means(vae):
    """The mean of 4000 draws of x at a given z lies within 5 standard errors of E[x | z]."""
    torch.manual_seed(0)
    x = vae.sample(1)
    q, p = vae.encoder(x), vae.decoder(vae.encoder(x).mean)
    torch.testing.assert_close(vae.encode(x), q.mean)
    torch.testing.assert_close(vae.reconstruct(x), p.mean)
    for distribution in (q, p):
        draws = distribution.sample((4000,))
        assert (
            (draws.mean(0) - distribution.mean).abs() <= 5 * draws.std(0) / math.sqrt(4000) + 1e-5
        ).all()


def test_mean_samples_vary_and_mean_reconstructions_do_not(vae):
    torch.manual_seed(0)
    x = vae.sample(4)
    assert not torch.equal(vae.sample(4, mean=True), vae.sample(4, mean=True))
    assert torch.equal(vae.reconstruct(x), vae.reconstruct(x))
    assert torch.equal(vae.encode(x), vae.encode(x))
    assert not torch.equal(vae.encode(x, mean=False), vae.encode(x, mean=False))
    assert not torch.equal(vae.reconstruct(x, mean=False), vae.reconstruct(x, mean=False))


def test_a_reconstruction_without_mean_draws_both(vae):
    """x' ~ p(x' | z) with z ~ q(z | x): a draw of z, then one of x'."""
    x = vae.sample(4)
    torch.manual_seed(0)
    drawn = vae.reconstruct(x, mean=False)
    torch.manual_seed(0)
    expected = vae.decoder(vae.encoder(x).sample()).sample()
    assert torch.equal(drawn, expected)


def test_nothing_of_it_needs_a_gradient_or_the_store(vae):
    x = vae.sample(2)
    assert not any(
        value.requires_grad
        for value in (x, vae.encode(x), vae.reconstruct(x), vae.sample(2, mean=True))
    )
    assert not dict(pyro.get_param_store().items())


def with_sizes(prior=LATENT, decoder=LATENT, encoder=LATENT, pixels=PIXELS, seen=PIXELS):
    return VAE(
        StandardNormal(prior),
        Bernoulli(mlp(decoder, 8, pixels)),
        DiagonalNormal(mlp(seen, 8, 2 * encoder)),
    )


GOOD = torch.ones(4, PIXELS)
REFUSED = {
    "prior of another size": (
        lambda: (with_sizes(prior=5), GOOD),
        r"site 'z' in the model's shape \(4, 5\), got \(4, 3\)",
    ),
    "decoder of another size": (
        lambda: (with_sizes(decoder=5), GOOD),
        r"expected input \(\.\.\., 5\), got \(4, 3\)",
    ),
    "encoder of another size": (
        lambda: (with_sizes(encoder=5), GOOD),
        r"site 'z' in the model's shape \(4, 3\), got \(4, 5\)",
    ),
    "images of another size": (
        lambda: (with_sizes(), GOOD[:, :9]),
        r"expected input \(\.\.\., 12\), got \(4, 9\)",
    ),
    "images that are not flat": (
        lambda: (with_sizes(), GOOD.reshape(4, 1, 3, 4)),
        r"expected input \(\.\.\., 12\), got \(4, 1, 3, 4\)",
    ),
    "decoder of another image size": (lambda: (with_sizes(pixels=10), GOOD), r"\[4, 12\].*4, 10\]"),
    "grey pixels": (
        lambda: (with_sizes(), GOOD * 0.5),
        "in the support .*Bernoulli, got values in .0.5, 0.5.: choose a likelihood",
    ),
    "8-bit pixels": (
        lambda: (with_sizes(), GOOD * 255),
        "in the support .*Bernoulli, got values in .255, 255.: choose a likelihood",
    ),
    "NaN": (lambda: (with_sizes(), GOOD * math.nan), "nan"),
}


@pytest.mark.parametrize("call", ["step", "evaluate_loss", "log_likelihood"])
@pytest.mark.parametrize(("make", "message"), REFUSED.values(), ids=REFUSED)
def test_refused(make, message, call):
    vae, x = make()
    svi = SVI(vae.model, vae.guide, torch.optim.Adam(vae.parameters()), loss=Trace_ELBO())
    calls = {"step": svi.step, "evaluate_loss": svi.evaluate_loss}
    if call == "log_likelihood":  # looks at two data first
        message = message.replace(r"\(4,", r"\(2,").replace(r"\[4,", r"\[2,")
        message = message.replace(".*4, 10", ".*2, 10")
        calls[call] = lambda x: log_likelihood(vae.model, vae.guide, x, num_samples=3)
    with pytest.raises(ValueError, match=message):
        calls[call](x)


def test_one_bad_image_among_many_is_refused():
    vae, x = with_sizes(), GOOD.clone()
    x[-1, -1] = 0.5
    with pytest.raises(ValueError, match=r"got values in \[0.5, 1\]"):
        SVI(vae.model, vae.guide, torch.optim.Adam(vae.parameters()), loss=Trace_ELBO()).step(x)
    with pytest.raises(ValueError, match="support"):
        log_likelihood(vae.model, vae.guide, x, num_samples=3)
