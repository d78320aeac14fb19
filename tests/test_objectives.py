"""Every objective: its contract, by name; a new one is one line of ``OBJECTIVES``. Then what is
particular to each."""

from typing import cast

import pyro.distributions as dist
import pytest
import torch
from families import inputs
from linear_gaussian import LinearGaussian
from pyro import poutine
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx

from pyro_vae import (
    SVI,
    VAE,
    Bernoulli,
    DiagonalNormal,
    StandardNormal,
    Trace_ELBO,
    TraceMeanField_ELBO,
    mlp,
)
from pyro_vae.evaluation import latents
from pyro_vae.families.categorical import OneHotCategorical, UniformOneHot
from pyro_vae.families.delta import Delta
from pyro_vae.families.flow import IAF
from pyro_vae.nets.batch_norm import BatchNormMean
from pyro_vae.objectives.doubly_reparameterised import STL, DReG
from pyro_vae.objectives.free_bits import FreeBits
from pyro_vae.objectives.importance_weighted import IWAE
from pyro_vae.objectives.info import InfoVAE, mmd
from pyro_vae.objectives.renyi import Renyi
from pyro_vae.objectives.score_function import ScoreFunction_ELBO
from pyro_vae.objectives.wake_sleep import ReweightedWakeSleep
from pyro_vae.programs.isolation import isolated, looking
from pyro_vae.programs.pair import Pair

OBJECTIVES = {
    "elbo": Trace_ELBO(),
    "analytic": TraceMeanField_ELBO(3, beta=0.7),
    "iwae": IWAE(4),
    "dreg": DReG(4),
    "stl": STL(4),
    "renyi": Renyi(4, alpha=0.3),
    "vr-max": Renyi(4, alpha=-20.0),
    "wake-sleep": ReweightedWakeSleep(4),
    "wake-sleep, asleep": ReweightedWakeSleep(4, insomnia=0.5),
    "free bits": FreeBits(0.2),
    "score": ScoreFunction_ELBO(4),
    "infovae": InfoVAE(),
}
NOT_ADDITIVE = ["infovae", "wake-sleep, asleep"]  # one compares a batch, the other dreams afresh
WEIGHTED = ["iwae", "dreg", "stl", "renyi", "wake-sleep", "score"]
objectives = pytest.mark.parametrize("name", OBJECTIVES)


class Frozen(dist.Normal):
    """A Normal whose noise is a function of its mean: a draw that a datum makes alike in any
    company."""

    def rsample(self, sample_shape=()):
        shape = self._extended_shape(sample_shape)
        k = torch.arange(shape[0]).view(-1, *[1] * (len(shape) - 1)) if len(shape) == 3 else 0
        return self.loc + self.scale * torch.sin(1e4 * self.loc.detach() + 7 * k)


class FrozenNormal(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, h):
        loc, log_scale = self.net(h).chunk(2, -1)
        return Frozen(loc, log_scale.exp()).to_event(1)


def make(encoder=FrozenNormal) -> VAE:
    torch.manual_seed(0)
    return VAE(StandardNormal(3), Bernoulli(mlp(3, 8, 5)), encoder(mlp(5, 8, 6))).double()


def pixels(rows: int = 6):
    return (inputs(rows, 5) > 0).double()


def loss_and_gradients(objective, vae, *args, validate=True):
    vae.zero_grad()
    with isolated([vae], validate=validate, strict=validate):
        estimate = objective.estimate(vae.model, vae.guide, *args)
        estimate.loss.backward()
    return estimate, torch.cat([p.grad.flatten() for p in vae.parameters()])


@objectives
def test_estimate(name):
    vae = make(DiagonalNormal)
    estimate, gradient = loss_and_gradients(OBJECTIVES[name], vae, pixels())
    assert all(value.shape == () and value.isfinite() for value in estimate)
    assert not estimate.log_likelihood.requires_grad
    assert not estimate.kl.requires_grad
    assert gradient.isfinite().all()
    assert all(p.grad.abs().sum() > 0 for p in vae.parameters())


@pytest.mark.parametrize("name", [name for name in OBJECTIVES if name not in NOT_ADDITIVE])
def test_a_batch_is_the_sum_of_its_items(name):
    vae, x = make(), pixels()
    whole, gradient = loss_and_gradients(OBJECTIVES[name], vae, x)
    parts = [loss_and_gradients(OBJECTIVES[name], vae, row.unsqueeze(0)) for row in x]
    for i in range(3):
        torch.testing.assert_close(whole[i].detach(), sum(part[i].detach() for part, _ in parts))
    torch.testing.assert_close(gradient, sum(g for _, g in parts))


@objectives
def test_looks_without_learning(name):
    vae = make(DiagonalNormal)
    svi = SVI(vae.model, vae.guide, torch.optim.Adam(vae.parameters()), OBJECTIVES[name])
    before = [p.clone() for p in vae.parameters()]
    assert svi.evaluate_loss(pixels()).isfinite()
    assert all(torch.equal(a, b) for a, b in zip(before, vae.parameters(), strict=True))


class Normalised(nn.Module):
    """BatchNorm over all leading dimensions."""

    def __init__(self, dim):
        super().__init__()
        self.norm = nn.BatchNorm1d(dim)

    def forward(self, h):
        return self.norm(h.flatten(0, -2)).view(h.shape)


@objectives
def test_batchnorm_trains_on_both_sides(name):
    vae = make(DiagonalNormal)
    decoder, encoder = (cast(nn.Sequential, part.net) for part in (vae.decoder, vae.encoder))
    vae.decoder.net, vae.encoder.net = (
        nn.Sequential(Normalised(3), decoder),
        nn.Sequential(encoder, Normalised(6)),
    )
    vae.double()
    svi = SVI(vae.model, vae.guide, torch.optim.Adam(vae.parameters()), OBJECTIVES[name])
    for _ in range(2):
        assert svi.step(pixels()).isfinite()
    for part in (vae.decoder.net[0], vae.encoder.net[1]):
        assert part.norm.num_batches_tracked >= 2
        assert part.norm.running_var.isfinite().all()


@objectives
def test_asks_the_device_for_no_number(name):
    """The loss and its gradient, as one graph of their tensors."""
    vae = make(DiagonalNormal)
    names = [n for n, _ in vae.named_parameters()]
    pair = Pair(vae.model, vae.guide)
    with pair.isolated():
        OBJECTIVES[name].score(pair, (pixels(),), {})  # the structure is found eagerly, once

    def flat(x, *values):
        free = {n: v.detach().requires_grad_() for n, v in zip(names, values, strict=True)}

        class Loss(nn.Module):
            def __init__(self):
                super().__init__()
                self.vae = vae

            def forward(self):
                with pair.isolated(validate=False):
                    return OBJECTIVES[name].score(pair, (x,), {}).loss

        buffers = {f"vae.{n}": b.to(x) * 1 for n, b in vae.named_buffers()}
        loss = torch.func.functional_call(
            Loss(), {f"vae.{n}": v for n, v in free.items()} | buffers
        )
        return [loss.detach(), *torch.autograd.grad(loss, list(free.values()))]

    graph = make_fx(flat, tracing_mode="real")(pixels(), *vae.parameters())
    assert not any("_local_scalar_dense" in str(node.target) for node in graph.graph.nodes)


@pytest.mark.parametrize("name", WEIGHTED)
def test_a_common_scale_multiplies_and_different_scales_are_refused(name):
    vae, x = make(), pixels()
    plain = OBJECTIVES[name].estimate(vae.model, vae.guide, x).loss
    whole = poutine.scale(scale=0.25)
    torch.testing.assert_close(
        OBJECTIVES[name].estimate(whole(vae.model), whole(vae.guide), x).loss, plain / 4
    )
    latent = poutine.scale(vae.guide, scale=0.25)
    if name == "score":  # an ELBO may be annealed
        return
    with pytest.raises(ValueError, match=r"expected one scale for all sites, got 1\.0 at"):
        OBJECTIVES[name].estimate(vae.model, latent, x)


@pytest.mark.parametrize("name", ["dreg", "stl", "infovae"])
def test_latents_without_gradient_are_refused(name):
    vae = VAE(UniformOneHot(3), Bernoulli(mlp(3, 8, 5)), OneHotCategorical(mlp(5, 8, 3)))
    with pytest.raises(
        TypeError, match="expected reparameterised latents, got OneHotCategorical at site 'z': use"
    ):
        OBJECTIVES[name].estimate(vae.model, vae.guide, pixels().float())


ERRORS = {
    "no draws": (lambda: IWAE(0), ValueError, "num_particles of at least 1, got 0"),
    "one draw": (lambda: ScoreFunction_ELBO(1), ValueError, "num_particles of at least 2, got 1"),
    "beta": (lambda: IWAE(5, beta=0.5), TypeError, "beta"),
    "alpha": (
        lambda: Renyi(5, alpha=1.0),
        ValueError,
        "alpha other than 1, whose limit is Trace_ELBO, got 1",
    ),
    "insomnia": (
        lambda: ReweightedWakeSleep(5, insomnia=2.0),
        ValueError,
        "insomnia in [0, 1], got 2",
    ),
    "floor": (lambda: FreeBits(-1.0), ValueError, "floor of at least 0, got -1"),
    "spread": (lambda: BatchNormMean(nn.Identity(), 2, 0.0), ValueError, "positive spread, got 0"),
    "batch of one": (
        lambda: InfoVAE().estimate(make().model, make().guide, pixels(1)),
        ValueError,
        "at least 2 draws, got (1, 3) and (1, 3)",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name):
    call, error, message = ERRORS[name]
    with pytest.raises(error) as caught:
        call()
    assert message in str(caught.value)


def test_free_bits_with_a_flow_is_refused():
    vae = make(lambda net: IAF(mlp(5, 8, IAF.outputs(3)), 3))
    with pytest.raises(
        TypeError, match="expected families with a closed-form KL, got q = Flow and p = Normal"
    ):
        FreeBits().estimate(vae.model, vae.guide, pixels())


def test_renyi_lies_between_its_limits():
    """alpha = 0 is IWAE; towards 1 the ELBO; below 0 above IWAE: on the same draws."""
    vae, x = make(), pixels()
    bounds = [
        -float(Renyi(16, alpha=alpha).estimate(vae.model, vae.guide, x).loss.detach())
        for alpha in (0.999999, 0.5, 0.0, -5.0)
    ]
    assert bounds == sorted(bounds)
    assert bounds[0] == pytest.approx(
        float(Trace_ELBO(16).estimate(vae.model, vae.guide, x).elbo), abs=1e-3
    )
    assert bounds[2] == pytest.approx(
        -float(IWAE(16).estimate(vae.model, vae.guide, x).loss.detach())
    )


def test_wake_sleep_gives_the_model_the_gradient_of_iwae():
    vae, x = make(), pixels()
    names = [n for n, _ in vae.named_parameters()]
    grads = []
    for objective in (IWAE(8), ReweightedWakeSleep(8)):
        estimate, _ = loss_and_gradients(objective, vae, x)
        grads.append(
            (estimate.loss.detach(), {n: p.grad.clone() for n, p in vae.named_parameters()})
        )
    torch.testing.assert_close(grads[0][0], grads[1][0])
    for n in names:
        assert torch.allclose(grads[0][1][n], grads[1][1][n]) == n.startswith("decoder")


@pytest.mark.parametrize("insomnia", [1.0, 0.0])
def test_wake_sleep_leaves_the_posterior_alone(insomnia):
    """At q = posterior the guide's gradient has mean zero, awake and asleep; from elsewhere it
    leads there."""
    torch.manual_seed(0)
    truth = LinearGaussian()
    vae, x = truth.vae(), truth.data(20)
    objective = ReweightedWakeSleep(5, insomnia=insomnia)
    grads = []
    for _ in range(150):
        loss_and_gradients(objective, vae, x, validate=False)
        grads.append(torch.cat([p.grad.flatten() for p in vae.encoder.parameters()]))
    grads = torch.stack(grads)
    assert (grads.mean(0).abs() <= 4.5 * grads.std(0) / 150**0.5).all()
    vae = truth.vae(truth.wrong_encoder(shift=0.3)).requires_grad_(False)
    svi = SVI(
        vae.model,
        vae.guide,
        torch.optim.Adam(vae.encoder.requires_grad_().parameters(), 0.003),
        objective,
    )

    def gap():
        with looking([vae]):
            return float(
                (
                    truth.log_likelihood(x).sum()
                    - Trace_ELBO(50).estimate(vae.model, vae.guide, x).elbo
                )
                / 20
            )

    before = gap()
    for _ in range(400):
        svi.step(x)
    assert gap() < 0.5 * before


@pytest.mark.parametrize(
    "objective", [ReweightedWakeSleep(2000), ScoreFunction_ELBO(2000)], ids=["wake-sleep", "score"]
)
def test_no_gradient_passes_through_the_draws(objective):
    """Against sums over the same draws by hand, for a guide of which every parameter matters, its
    scale too."""
    vae, x = make(DiagonalNormal), pixels()
    torch.manual_seed(0)
    _, gradient = loss_and_gradients(objective, vae, x)
    torch.manual_seed(0)
    q = vae.encoder(x)
    z = q.expand((2000, 6)).sample()
    log_p = vae.prior().log_prob(z) + vae.decoder(z).log_prob(x)
    log_w = (log_p - q.log_prob(z)).detach()
    if isinstance(objective, ReweightedWakeSleep):
        by_hand = (log_w.softmax(0) * (log_p + q.log_prob(z))).sum()
    else:
        by_hand = (log_p + (log_w - log_w.mean(0)) * 2000 / 1999 * q.log_prob(z)).sum() / 2000
    grads = torch.autograd.grad(-by_hand, list(vae.parameters()))
    torch.testing.assert_close(gradient, torch.cat([g.flatten() for g in grads]))


def test_sleep_needs_arguments_that_are_observed_as_they_are():
    vae, x = make(DiagonalNormal), pixels()
    message = "expected the model to observe one of its arguments as it is at .*use insomnia=1"
    with pytest.raises(ValueError, match=message):
        ReweightedWakeSleep(2, insomnia=0.5).estimate(lambda x: vae.model(x.clone()), vae.guide, x)


def test_mmd_matches_its_definition_and_tells_samples_apart():
    torch.manual_seed(0)
    a, b = torch.randn(6, 2), torch.randn(6, 2) + 1
    k = lambda u, v: sum(1 / (1 + float((u - v).square().sum()) / (4 * s)) for s in (0.5, 2.0))  # noqa: E731
    within = (
        sum(k(u, v) for s in (a, b) for i, u in enumerate(s) for j, v in enumerate(s) if i != j)
        / 30
    )
    between = sum(k(u, v) for u in a for v in b) / 36
    assert float(mmd(a, b, (0.5, 2.0))) == pytest.approx(within - 2 * between, rel=1e-4)
    null = torch.stack([mmd(torch.randn(100, 2), torch.randn(100, 2)) for _ in range(100)])
    assert abs(float(null.mean())) < 4 * float(null.std()) / 10
    assert float(mmd(torch.randn(100, 2), torch.randn(100, 2) + 1)) > float(null.max())


def test_infovae_is_the_elbo_at_its_corner_and_an_autoencoder_at_the_other():
    vae, x = make(), pixels()
    corner, elbo = (
        objective.estimate(vae.model, vae.guide, x).loss
        for objective in (InfoVAE(alpha=0.0, weight=1.0), Trace_ELBO())
    )
    torch.testing.assert_close(corner, elbo)
    point = make(lambda net: Delta(mlp(5, 8, 3)))
    estimate = InfoVAE(alpha=1.0, weight=0.0).estimate(point.model, point.guide, x)
    torch.testing.assert_close(estimate.loss.detach(), -estimate.log_likelihood)


def test_free_bits_floor_each_dimension_of_each_datum():
    vae, x = make(DiagonalNormal), pixels()
    torch.manual_seed(0)
    floored = FreeBits(0.3).estimate(vae.model, vae.guide, x)
    q = vae.encoder(x).base_dist
    kl = torch.distributions.kl_divergence(
        q, torch.distributions.Normal(torch.zeros_like(q.loc), 1.0)
    )
    torch.testing.assert_close(floored.loss + floored.log_likelihood, kl.clamp(min=0.3).sum())
    torch.testing.assert_close(floored.kl, kl.sum())
    vae = make()  # whose draws repeat
    torch.testing.assert_close(
        FreeBits(0.0).estimate(vae.model, vae.guide, x).loss,
        TraceMeanField_ELBO().estimate(vae.model, vae.guide, x).loss,
    )


class Deaf(nn.Module):
    """A decoder strong enough alone: the best z is none."""

    def __init__(self):
        super().__init__()
        self.logits, self.ear = nn.Parameter(torch.zeros(5)), nn.Parameter(torch.full((3, 5), 0.01))

    def forward(self, z):
        return dist.Bernoulli(logits=self.logits + z @ self.ear).to_event(1)


@pytest.mark.parametrize("cure", ["none", "free bits", "normalised mean"])
def test_cures_of_collapse(cure):
    """On pixels without structure the KL collapses; each cure holds it up, and says so in the
    units it keeps active."""
    torch.manual_seed(0)
    x = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 5).repeat(6, 1)
    net = mlp(5, 8, 6)
    vae = VAE(
        StandardNormal(3),
        Deaf(),
        DiagonalNormal(BatchNormMean(net, 3, 0.5) if cure == "normalised mean" else net),
    )
    svi = SVI(
        vae.model,
        vae.guide,
        torch.optim.Adam(vae.parameters(), 0.02),
        FreeBits(0.2) if cure == "free bits" else TraceMeanField_ELBO(),
    )
    for _ in range(400):
        svi.step(x)
    vae.train()
    kl = float(TraceMeanField_ELBO().estimate(vae.model, vae.guide, x).kl) / 192
    active = latents.active_units(latents.latent_means(vae.guide, x), threshold=0.2)
    if cure == "none":
        assert kl < 0.1
        assert active == 0
    elif cure == "free bits":
        assert kl > 0.3
        assert active >= 1
    else:
        assert kl >= 3 * 0.5**2 / 2 - 1e-3
        assert active == 3
