"""Importance-weighted bounds and their gradients, on a model where log p(x) is known."""

import math

import pytest
import torch
from families import REAL, build
from linear_gaussian import LinearGaussian
from programs import PAIRS
from torch import nn

from pyro_vae import VAE, Bernoulli, DiagonalNormal, StandardNormal, Trace_ELBO, mlp
from pyro_vae.objectives.doubly_reparameterised import STL, DReG
from pyro_vae.objectives.importance_weighted import IWAE, bound, normalised
from pyro_vae.objectives.wake_sleep import ReweightedWakeSleep
from pyro_vae.programs.isolation import isolated, looking
from pyro_vae.programs.modules import modules_of
from pyro_vae.programs.scoring import log_weight as log_weight_of


def estimates(objective, vae, x, n: int):
    """``n`` independent losses and gradients, the guide's parameters (bias, weight) before the
    model's."""
    chosen = [*vae.encoder.parameters(), *vae.decoder.parameters()]
    losses, grads = [], []
    for _ in range(n):
        with isolated([vae], validate=False):
            loss = objective.estimate(vae.model, vae.guide, x).loss
        losses.append(loss.detach())
        grads.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, chosen)]))
    return torch.stack(losses), torch.stack(grads)


def wrong() -> tuple[LinearGaussian, VAE, torch.Tensor]:
    torch.manual_seed(0)
    truth = LinearGaussian()
    return truth, truth.vae(truth.wrong_encoder()), truth.data(20)


def test_the_bound_rises_with_k_and_stays_below_log_p():
    truth, vae, x = wrong()
    means, errors = [], []
    with looking([vae]):
        for k in (1, 2, 5, 20, 100):
            bound = (
                -torch.stack([IWAE(k).estimate(vae.model, vae.guide, x).loss for _ in range(60)])
                / 20
            )
            means.append(float(bound.mean()))
            errors.append(float(bound.std()) / 60**0.5)
    log_p = float(truth.log_likelihood(x).mean())
    for i in range(4):
        assert means[i + 1] - means[i] > 3 * (errors[i] ** 2 + errors[i + 1] ** 2) ** 0.5
    assert all(mean < log_p + 3 * error for mean, error in zip(means, errors, strict=True))
    assert means[-1] > log_p - 0.1


PAIRS_OF_EQUALS = {
    "IWAE and DReG": (IWAE(5), DReG(5)),
    "IWAE and DReG, many": (IWAE(20), DReG(20)),
    "ELBO and STL": (Trace_ELBO(3), STL(3)),
    "ELBO, IWAE of one": (Trace_ELBO(), IWAE(1)),
    "STL and DReG of one": (STL(1), DReG(1)),
}


@pytest.mark.parametrize("name", PAIRS_OF_EQUALS)
def test_estimators_of_one_gradient_agree_in_the_mean(name):
    _, vae, x = wrong()
    (losses, grads), (others, other_grads) = (
        estimates(objective, vae, x, 120) for objective in PAIRS_OF_EQUALS[name]
    )
    assert (losses.mean() - others.mean()).abs() < 4 * ((losses.var() + others.var()) / 120).sqrt()
    error = ((grads.var(0) + other_grads.var(0)) / 120).sqrt()
    assert ((grads.mean(0) - other_grads.mean(0)).abs() <= 4.5 * error + 1e-9).all()
    assert (grads.mean(0).abs() > 4.5 * error).any()  # they are told apart from zero


@pytest.mark.parametrize("pair", ["bottom-up", "top-down"])
def test_dreg_holds_for_several_latents(pair):
    """q(z1 | x) q(z2 | z1): the first draw moves the second one's density too."""
    made = PAIRS[pair]()
    parameters = made.parameters()
    samples = []
    for objective in (IWAE(4), DReG(4)):
        grads = []
        for _ in range(150):
            with isolated([made.module], validate=False):
                loss = objective.estimate(made.model, made.guide, *made.args).loss
            grads.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)]))
        samples.append(torch.stack(grads))
    error = ((samples[0].var(0) + samples[1].var(0)) / 150).sqrt()
    score = (samples[0].mean(0) - samples[1].mean(0)) / error.clamp(min=1e-12)
    assert score.abs().max() < 5
    assert float(score.square().mean()) < 1.5  # scattered as the standard errors say


def test_dreg_has_less_variance_than_iwae_at_fifty():
    _, vae, x = wrong()
    guide = sum(p.numel() for p in vae.encoder.parameters())
    (_, plain), (_, doubly) = (
        estimates(objective, vae, x, 200) for objective in (IWAE(50), DReG(50))
    )
    assert float(doubly[:, :guide].var(0).sum()) < 0.2 * float(plain[:, :guide].var(0).sum())
    signal = [g[:, :guide].mean(0).abs() / g[:, :guide].std(0) for g in (plain, doubly)]
    assert float(signal[1].nanmean()) > 2 * float(signal[0].nanmean())


@pytest.mark.parametrize("objective", [STL(1), DReG(8)], ids=["stl", "dreg"])
def test_the_gradient_vanishes_at_the_posterior(objective):
    """The guide's gradient is zero for each draw, not only in the mean; the plain one is not."""
    truth = LinearGaussian()
    vae, x = truth.vae(), truth.data(5)
    guide = sum(p.numel() for p in vae.encoder.parameters())
    _, grads = estimates(objective, vae, x, 3)
    torch.testing.assert_close(
        grads[:, :guide], torch.zeros_like(grads[:, :guide]), atol=1e-8, rtol=0
    )
    _, plain = estimates(Trace_ELBO(), vae, x, 3)
    assert plain[:, :guide].abs().max() > 0.1


@pytest.mark.parametrize("name", REAL)
def test_path_gradients_of_every_family(name):
    """STL agrees with the ELBO in the mean gradient of the encoder's outputs, inverted flows
    included."""
    torch.manual_seed(0)
    truth = LinearGaussian(latent=2, observed=4, noise=1.0)
    family = build(name, dim=2)
    raw = 0.5 * family.net(torch.ones(5, dtype=torch.float64)).detach()
    family.net = nn.Identity()
    vae, x = truth.vae(family), truth.data(1).expand(4000, -1)
    grads = []
    for objective in (Trace_ELBO(), STL(1)):
        rows = raw.expand(4000, -1).clone().requires_grad_()

        def guide(x, rows=rows):
            import pyro

            with pyro.plate("data", len(x)):
                pyro.sample("z", family(rows))

        with isolated(modules_of(vae.model, guide), validate=True):
            loss = objective.estimate(vae.model, guide, x).loss
        grads.append(torch.autograd.grad(loss, rows)[0])
    error = ((grads[0].var(0) + grads[1].var(0)) / 4000).sqrt()
    assert ((grads[0].mean(0) - grads[1].mean(0)).abs() <= 4.5 * error + 1e-9).all()


def test_a_guide_that_changes_between_runs_is_refused():
    torch.manual_seed(0)
    vae = VAE(
        StandardNormal(3),
        Bernoulli(mlp(3, 8, 5)),
        DiagonalNormal(nn.Sequential(nn.Dropout(0.5), nn.Linear(5, 6))),
    )
    with (
        isolated([vae], validate=True),
        pytest.raises(ValueError, match="deterministic given its draws, got log q"),
    ):
        DReG(3).estimate(vae.model, vae.guide, torch.ones(50, 5))
    vae.eval()
    with isolated([vae], validate=True):
        assert DReG(3).estimate(vae.model, vae.guide, torch.ones(50, 5)).loss.isfinite()


TINY = torch.finfo(torch.float32).tiny


def subnormal(x: torch.Tensor) -> bool:
    return bool(((x != 0) & (x.abs() < TINY)).any())


def test_negligible_weights_change_no_digit():
    torch.manual_seed(0)
    log_weight = (100 * torch.randn(50, 20, dtype=torch.float64)).requires_grad_()
    value = bound(log_weight)
    exact = log_weight.softmax(0)
    truth = log_weight.logsumexp(0) - math.log(50)
    torch.testing.assert_close(value, truth, rtol=1e-14, atol=1e-14)
    (grad,) = torch.autograd.grad(value.sum(), log_weight)
    torch.testing.assert_close(grad, exact, rtol=1e-12, atol=1e-17)
    torch.testing.assert_close(normalised(log_weight), exact, rtol=1e-12, atol=1e-17)
    assert subnormal(exact.float())
    assert not subnormal(grad.float())
    assert not subnormal(normalised(log_weight.float()))


def test_weights_of_zero_infinity_and_nan():
    inf, nan = torch.inf, torch.nan
    log_weight = torch.tensor([[-inf, -inf, 0.0, nan], [-inf, 0.0, inf, 0.0]], requires_grad=True)
    value = bound(log_weight)
    expected = torch.tensor([-inf, 0.0, inf, nan]) - math.log(2)
    torch.testing.assert_close(value, expected, equal_nan=True)
    (grad,) = torch.autograd.grad(value.sum(), log_weight)
    assert grad[:, 1].tolist() == [0.0, 1.0]
    assert grad[:, 3].isnan().all()
    assert normalised(log_weight)[:, 3].isnan().all()


def test_no_subnormal_gradient_where_classes_are_summed_out():
    """log w = log sum_y p(x, y, z) / q(z | x, y), with one class far above the others."""
    log_joint = torch.tensor([[[0.0]], [[-95.0]]], requires_grad=True)
    zero = torch.zeros(2, 1, 1)
    (grad,) = torch.autograd.grad(log_weight_of(log_joint, zero, zero).sum(), log_joint)
    assert grad.flatten().tolist() == [1.0, 0.0]
    assert subnormal(log_joint.softmax(0))


@pytest.mark.parametrize("objective", [IWAE(50), DReG(50), ReweightedWakeSleep(50)])
def test_gradients_are_not_subnormal(objective):
    """With them a product takes several times as long; most weights are far below the largest."""
    torch.manual_seed(0)
    vae = VAE(StandardNormal(2), Bernoulli(nn.Linear(2, 4000)), DiagonalNormal(nn.Linear(4000, 4)))
    grads: list[torch.Tensor] = []

    def hook(module, inputs, logits):
        if logits.requires_grad:
            logits.register_hook(grads.append)

    vae.decoder.net.register_forward_hook(hook)
    x = torch.rand(10, 4000).round()
    with isolated([vae], validate=False):
        objective.estimate(vae.model, vae.guide, x).loss.backward()
    assert grads
    assert not any(subnormal(grad) for grad in grads)
