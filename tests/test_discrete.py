"""One model with a categorical latent, three gradients: enumerated, by score function, relaxed."""

import pytest
import torch
from families import inputs
from pyro.infer import TraceEnum_ELBO, config_enumerate
from torch import nn

from pyro_vae import SVI, VAE, Bernoulli, Trace_ELBO, TraceMeanField_ELBO, log_likelihood, mlp
from pyro_vae.families.categorical import GumbelSoftmax, OneHotCategorical, UniformOneHot
from pyro_vae.objectives.score_function import ScoreFunction_ELBO
from pyro_vae.objectives.wake_sleep import ReweightedWakeSleep
from pyro_vae.programs.isolation import isolated

CLASSES = 4


def make(family=OneHotCategorical, **options) -> VAE:
    torch.manual_seed(0)
    return VAE(
        UniformOneHot(CLASSES), Bernoulli(mlp(CLASSES, 8, 5)), family(mlp(5, 8, CLASSES), **options)
    ).double()


def pixels():
    return (inputs(6, 5) > 0).double()


def exact_elbo(vae, x):
    """sum_c q(c | x) (log p(x | c) + log p(c) - log q(c | x)), by hand."""
    one_hot = torch.eye(CLASSES, dtype=torch.float64)
    log_q = vae.encoder(x).logits
    log_p = torch.stack(
        [vae.decoder(one_hot[c]).log_prob(x) for c in range(CLASSES)], -1
    ) - torch.log(torch.tensor(float(CLASSES)))
    return (log_q.exp() * (log_p - log_q)).sum()


def exact_gradient(vae, x):
    return torch.cat(
        [g.flatten() for g in torch.autograd.grad(-exact_elbo(vae, x), list(vae.parameters()))]
    )


def gradients(objective, vae, x, n: int):
    out = []
    for _ in range(n):
        with isolated([vae], validate=False):
            loss = objective.estimate(vae.model, vae.guide, x).loss
        out.append(
            torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(vae.parameters()))])
        )
    return torch.stack(out)


def test_enumeration_on_the_same_model_is_exact():
    vae, x = make(), pixels()
    with isolated([vae], validate=True):
        loss = TraceEnum_ELBO(max_plate_nesting=1).differentiable_loss(
            vae.model, config_enumerate(vae.guide), x
        )
    torch.testing.assert_close(loss, -exact_elbo(vae, x))
    gradient = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(vae.parameters()))])
    torch.testing.assert_close(gradient, exact_gradient(vae, x))


@pytest.mark.parametrize(
    "objective", [Trace_ELBO(4), ScoreFunction_ELBO(4)], ids=["plain", "baseline"]
)
def test_score_function_is_unbiased(objective):
    vae, x = make(), pixels()
    sampled = gradients(objective, vae, x, 400)
    assert (
        (sampled.mean(0) - exact_gradient(vae, x)).abs() <= 4.5 * sampled.std(0) / 400**0.5 + 1e-9
    ).all()


def test_the_baseline_lowers_the_variance():
    vae, x = make(), pixels()
    guide = [p.numel() for n, p in vae.named_parameters() if n.startswith("encoder")]
    plain, baseline = (
        gradients(objective, vae, x, 300)[:, -sum(guide) :].var(0).sum()
        for objective in (Trace_ELBO(4), ScoreFunction_ELBO(4))
    )
    assert float(baseline) < 0.25 * float(plain)


@pytest.mark.parametrize("hard", [False, True])
def test_relaxation_trades_bias_for_variance(hard):
    """A lower temperature has less bias and more noise; a high one less than the score function."""
    x = pixels()
    bias, noise = {}, {}
    for temperature in (0.1, 2.0):
        vae = make(GumbelSoftmax, temperature=temperature, hard=hard)
        guide = sum(p.numel() for p in vae.encoder.parameters())
        sampled = gradients(TraceMeanField_ELBO(), vae, x, 300)[:, -guide:]
        bias[temperature] = float((sampled.mean(0) - exact_gradient(vae, x)[-guide:]).norm())
        noise[temperature] = float(sampled.var(0).sum())
    assert bias[0.1] < bias[2.0]
    assert noise[2.0] < noise[0.1]
    score = gradients(Trace_ELBO(), make(), x, 150)[:, -guide:].var(0).sum()
    assert noise[2.0] < 0.1 * float(score)


def test_relaxed_draws():
    torch.manual_seed(0)
    raw = inputs(CLASSES)
    for hard in (False, True):
        q = GumbelSoftmax(nn.Identity(), 0.3, hard)(raw)
        z = q.expand((50_000,)).rsample()
        torch.testing.assert_close(z.sum(-1), torch.ones(50_000, dtype=torch.float64))
        frequency = torch.nn.functional.one_hot(z.argmax(-1), CLASSES).double().mean(0)
        assert ((frequency - raw.softmax(-1)).abs() < 4 * (raw.softmax(-1) / 50_000).sqrt()).all()
        assert bool((z.max(-1).values > 1 - 1e-9).all()) == hard


def test_a_relaxed_draw_has_no_density_under_a_one_hot_prior():
    vae = make(GumbelSoftmax)
    with (
        isolated([vae], validate=True),
        pytest.raises(ValueError, match=r"OneHot|support"),
    ):
        Trace_ELBO().estimate(vae.model, vae.guide, pixels())


METHODS = {
    "score": (OneHotCategorical, ScoreFunction_ELBO(8)),
    "wake-sleep": (OneHotCategorical, ReweightedWakeSleep(8)),
    "relaxed": (GumbelSoftmax, TraceMeanField_ELBO()),
    "straight through": (lambda net: GumbelSoftmax(net, hard=True), TraceMeanField_ELBO()),
}


@pytest.mark.parametrize("name", METHODS)
def test_every_method_learns_the_classes(name):
    """Four patterns, four classes: log p(x) comes near the truth, log(1/4) and the pixel noise."""
    family, objective = METHODS[name]
    torch.manual_seed(0)
    patterns = (torch.rand(CLASSES, 20) > 0.5).double()
    x = patterns.repeat(25, 1)
    x = torch.where(torch.rand_like(x) < 0.05, 1 - x, x)
    vae = VAE(
        UniformOneHot(CLASSES), Bernoulli(mlp(CLASSES, 20)), family(mlp(20, 16, CLASSES))
    ).double()
    svi = SVI(vae.model, vae.guide, torch.optim.Adam(vae.parameters(), 0.03), objective)
    for _ in range(300):
        svi.step(x)
    discrete = VAE(vae.prior, vae.decoder, OneHotCategorical(vae.encoder.net))
    assert float(log_likelihood(discrete.model, discrete.guide, x, num_samples=50).mean()) > -9


def test_errors():
    with pytest.raises(ValueError, match="expected at least 2 classes, got 1"):
        UniformOneHot(1)
    with pytest.raises(ValueError, match="expected a positive temperature, got 0"):
        GumbelSoftmax(nn.Identity(), 0.0)
