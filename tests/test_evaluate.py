"""The evaluation: its numbers against closed forms and slow loops, for any programs."""

import itertools
import json
import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from linear_gaussian import LinearGaussian
from programs import PER_DATUM, Pair
from pyro.ops.stats import fit_generalized_pareto as trusted_fit
from pyro_examples import ExampleM2, ExampleVAE
from torch import Tensor, nn

from pyro_vae import VAE
from pyro_vae.evaluation import estimators as weights
from pyro_vae.evaluation.importance import log_weights
from pyro_vae.evaluation.kl import kl_decomposition, marginals
from pyro_vae.evaluation.latents import active_units
from pyro_vae.evaluation.pareto import fit_generalized_pareto, pareto_k, pareto_smoothed
from pyro_vae.evaluation.report import Evaluation, evaluate
from pyro_vae.programs.pair import Pair as Programs


def seeded(seed: int, p: Pair, **options) -> Evaluation:
    torch.manual_seed(seed)
    return evaluate(p.model, p.guide, *p.args, **options)


def poor_guide(latent: int = 10) -> tuple[LinearGaussian, VAE]:
    """Means too high by 0.1, scales by half: in ten dimensions one sample in six counts."""
    truth = LinearGaussian(latent=latent, observed=16)
    return truth, truth.vae(truth.wrong_encoder(shift=0.1, spread=1.5))


# The weights' statistics


def test_error_bar_is_calibrated():
    """200 repetitions of 4 data: log p(x) lies within 3 of its own standard errors of the closed
    form in at least 95 %."""
    torch.manual_seed(0)
    truth, vae = poor_guide()
    x = truth.data(4)
    log_weight = log_weights(vae.model, vae.guide, x.repeat(200, 1), num_samples=1000).reshape(
        1000, 200, 4
    )
    error = weights.log_mean_exp(log_weight) - truth.log_likelihood(x)
    standard_error = weights.standard_error(log_weight)
    assert (
        float(((error / standard_error).abs() < 3).double().mean()) >= 0.95
    )  # each datum by itself
    assert (
        float(
            ((error.mean(1) / standard_error.square().sum(1).sqrt() * 4).abs() < 3).double().mean()
        )
        >= 0.95
    )  # their mean
    torch.testing.assert_close(
        standard_error.mean(0), error.std(0), rtol=0.25, atol=0
    )  # std of 200: 5 % error


def test_jackknife_bias_is_the_loop_over_samples():
    log_weight = 5 * torch.randn(
        9, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    log_weight[3, 0] = 800.0  # all the others together are nothing beside it
    without = torch.stack(
        [weights.log_mean_exp(torch.cat([log_weight[:k], log_weight[k + 1 :]])) for k in range(9)]
    )
    torch.testing.assert_close(
        weights.jackknife_bias(log_weight), 8 * (without.mean(0) - weights.log_mean_exp(log_weight))
    )


def test_standard_error_is_the_delta_method():
    w = torch.rand(50, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(
        weights.standard_error(w.log()), w.std(0) / math.sqrt(50) / w.mean(0)
    )


def test_bounds_grow_with_samples():
    truth, vae = poor_guide()
    torch.manual_seed(0)
    x = truth.data(200)
    bounds = weights.bounds(log_weights(vae.model, vae.guide, x, num_samples=1024))
    sizes = list(bounds)
    assert sizes == [2**i for i in range(11)]
    for small, large in itertools.pairwise(sizes):
        gain = bounds[large] - bounds[small]
        assert float(gain.mean()) > -3 * float(gain.std()) / math.sqrt(200)
    assert float((bounds[1024] - truth.log_likelihood(x)).mean()) < 3 * float(
        (bounds[1024] - truth.log_likelihood(x)).std()
    ) / math.sqrt(200)


def test_jackknife_comes_closer_to_many_samples():
    """Mean over 100 data, K = 100 (49 times each) against K = 5000."""
    truth, vae = poor_guide()
    torch.manual_seed(0)
    x = truth.data(100)
    log_weight = log_weights(vae.model, vae.guide, x, num_samples=5000)
    many, few = (
        weights.log_mean_exp(log_weight),
        log_weight[:4900].reshape(49, 100, 100).transpose(0, 1),
    )
    plain = weights.log_mean_exp(few)
    jackknife = plain - weights.jackknife_bias(few)
    assert abs(float((jackknife - many).mean())) < 0.5 * abs(float((plain - many).mean()))


# Pareto smoothing


@pytest.mark.parametrize("k", [-0.3, 0.3, 0.7, 1.2])
def test_pareto_fit_is_the_trusted_one(k):
    u = torch.rand(300, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = ((u**-k - 1) / k * 2.0).sort(0).values
    shape, scale = fit_generalized_pareto(y)
    trusted = torch.tensor([trusted_fit(column) for column in y.T], dtype=torch.float64)
    torch.testing.assert_close(torch.stack([shape, scale], 1), trusted)
    assert (
        float((shape.mean() - k).abs()) < 0.15
    )  # standard error (1 + k) / sqrt(1500) < 0.06, and the prior's pull to 0.5


def test_pareto_k_tells_good_guides_from_bad():
    truth = LinearGaussian(latent=10, observed=16)
    x = truth.data(50)
    torch.manual_seed(0)
    for spread, shift, good in ((1.2, 0.0, True), (0.5, 0.2, False)):
        vae = truth.vae(truth.wrong_encoder(shift, spread))
        k = pareto_k(log_weights(vae.model, vae.guide, x, num_samples=2000))
        assert bool((k.mean() < 0.5) if good else (k > 0.7).all())


def test_pareto_smoothing_keeps_the_body_and_bounds_the_tail():
    log_weight = 3 * torch.randn(
        1000, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    smoothed = pareto_smoothed(log_weight).log_weight
    ordered = log_weight.sort(0).values
    torch.testing.assert_close(smoothed[:-95], ordered[:-95], rtol=0, atol=0)
    assert bool((smoothed[-95:].diff(dim=0) >= 0).all())
    assert bool((smoothed.amax(0) <= ordered[-1]).all())
    flat = pareto_smoothed(torch.full((100, 2), -300.0))
    assert flat.pareto_k.tolist() == [0, 0]
    torch.testing.assert_close(flat.log_weight, torch.full((100, 2), -300.0))
    assert pareto_k(log_weight[:20]).isnan().all()  # too few for a tail
    assert (pareto_k(1000 * log_weight.float()) > 1).all()  # beyond the range of float32


def test_pareto_smoothing_lessens_the_error():
    """A guide with k between 0.5 and 0.7, 500 times: the mean square error of log p(x)."""
    torch.manual_seed(0)
    truth = LinearGaussian(latent=4, observed=8)
    vae = truth.vae(truth.wrong_encoder(shift=0.0, spread=0.75))
    x = truth.data(1)
    log_weight = log_weights(vae.model, vae.guide, x.expand(500, -1), num_samples=200)
    raw, smooth = (
        weights.log_mean_exp(log_weight),
        weights.log_mean_exp(pareto_smoothed(log_weight).log_weight),
    )
    assert float((smooth - truth.log_likelihood(x)).square().mean()) < float(
        (raw - truth.log_likelihood(x)).square().mean()
    )


# The whole result


def test_exact_guide_leaves_nothing_to_estimate():
    truth = LinearGaussian()
    vae, x = truth.vae(), truth.data(30)
    result = evaluate(vae.model, vae.guide, x, num_samples=100)
    for estimate in (result.log_px, result.elbo, result.jackknife_log_px, result.smoothed_log_px):
        torch.testing.assert_close(estimate, truth.log_likelihood(x))
    for nought in (result.standard_error, result.bias, result.pareto_k):
        torch.testing.assert_close(nought, torch.zeros(30, dtype=torch.float64), atol=1e-6, rtol=0)
    torch.testing.assert_close(
        result.effective_sample_size, torch.full((30,), 100.0, dtype=torch.float64)
    )
    torch.testing.assert_close(
        result.bits_per_dimension, -truth.log_likelihood(x) / (8 * math.log(2))
    )
    assert result.active_units == 4
    assert bool(result.trustworthy.all())


def test_rate_and_distortion_are_the_closed_forms():
    torch.manual_seed(0)
    truth = LinearGaussian()
    vae, x = truth.vae(), truth.data(20)
    result = evaluate(vae.model, vae.guide, x, num_samples=4000)
    q = truth.posterior(x)
    prior = torch.distributions.MultivariateNormal(
        torch.zeros(4, dtype=torch.float64), torch.eye(4, dtype=torch.float64)
    )
    rate = torch.distributions.kl_divergence(q, prior)
    assert (
        float(((result.rate - rate).mean() / rate.mean()).abs()) < 0.01
    )  # of a noise of 2 / sqrt(80000)
    torch.testing.assert_close(result.rate + result.distortion, -result.elbo)


@pytest.mark.parametrize("name", PER_DATUM)
def test_chunks_change_nothing_and_all_is_finite(name):
    p = PER_DATUM[name]()
    whole, chunked = (seeded(0, p, num_samples=60, chunk_bytes=size) for size in (1 << 23, 1000))
    torch.testing.assert_close(whole.log_px, chunked.log_px)
    torch.testing.assert_close(whole.distortion, chunked.distortion)
    torch.testing.assert_close(whole.pareto_k, chunked.pareto_k)
    assert whole.kl.mutual_information == pytest.approx(chunked.kl.mutual_information)
    assert all(math.isfinite(value) for value in json.loads(json.dumps(whole.summary())).values())


def test_the_noise_of_sampled_means_is_no_active_unit():
    """A posterior without a closed-form mean that ignores the data, but for its first dimension."""
    torch.manual_seed(0)
    n, S = 2000, 64
    exact = torch.randn(n, 1) * torch.tensor([[0.5, 0.0, 0.0, 0.0]])
    once, again = (exact + torch.randn(n, 4) / S**0.5 for _ in range(2))
    assert active_units(once) == 4  # 1/64 is above the threshold
    assert (
        active_units(once, again) == 1
    )  # the covariance of the noise has a standard error of 1/64/sqrt(2000) = 0.0003


def test_the_decomposition_can_be_left_out():
    p = next(iter(PER_DATUM.values()))()
    result, without = (seeded(0, p, num_samples=10, kl_draws=draws) for draws in (20, 0))
    assert without.kl is None
    assert result.kl is not None
    assert without.summary() == {
        name: value for name, value in result.summary().items() if not name.startswith("kl_")
    }


@pytest.mark.slow
def test_compiled_blocks_of_any_size():
    """Seven data in blocks of five and two: the same result as without compilation."""
    p = PER_DATUM["vae"]()
    eager, compiled = (seeded(0, p, num_samples=3000, compile=compile) for compile in (False, True))
    torch.testing.assert_close(compiled.log_px, eager.log_px)
    torch.testing.assert_close(compiled.distortion, eager.distortion)


def test_more_samples_than_a_block():
    """K beyond what the guide draws in one pass."""
    truth = LinearGaussian(latent=2, observed=3)
    vae, x = truth.vae(truth.wrong_encoder()), truth.data(2)
    torch.manual_seed(0)
    result = evaluate(vae.model, vae.guide, x, num_samples=20_000)
    assert bool(((result.log_px - truth.log_likelihood(x)).abs() < 4 * result.standard_error).all())
    torch.manual_seed(0)
    torch.testing.assert_close(
        result.log_px,
        weights.log_mean_exp(log_weights(vae.model, vae.guide, x, num_samples=20_000)),
    )


def slow_loop(p: Pair, z: Tensor, x: Tensor) -> Tensor:
    """log w of single draws for single images, by torch's own distributions."""
    vae, normal = p.module, torch.distributions.Normal
    out = torch.empty(z.shape[:2], dtype=z.dtype)
    for k in range(len(z)):
        for b in range(len(x)):
            loc, log_variance = vae.encoder.net(x[b]).chunk(2, -1)
            log_q = normal(loc, (log_variance / 2).exp()).log_prob(z[k, b]).sum()
            log_pz = normal(torch.zeros_like(loc), 1.0).log_prob(z[k, b]).sum()
            log_px = (
                torch.distributions.Bernoulli(logits=vae.decoder.net(z[k, b])).log_prob(x[b]).sum()
            )
            out[k, b] = log_px + log_pz - log_q
    return out.detach()


def test_weights_are_those_of_single_images():
    p = PER_DATUM["vae"]()
    (x,) = p.args
    torch.manual_seed(0)
    fast = log_weights(p.model, p.guide, x, num_samples=20, chunk_bytes=1000)
    pair = Programs(p.model, p.guide)
    with pair.looking():
        torch.manual_seed(0)
        z = pair.sample(((x,), {}), 20).values["z"]
    torch.testing.assert_close(fast, slow_loop(p, z, x), atol=1e-6, rtol=0)


def test_companions_do_not_matter():
    """A datum's estimate beside other companions, the draws z being functions of the datum
    alone."""
    p = PER_DATUM["vae"]()
    (x,) = p.args

    def deterministic(x: Tensor) -> None:
        q = p.module.encoder(x)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Delta(q.mean, log_density=1.5).to_event(1))

    def estimates(x: Tensor) -> Evaluation:
        return evaluate(p.model, deterministic, x, num_samples=30)

    together = estimates(x)
    apart = [estimates(row) for row in x.split(1)]
    torch.testing.assert_close(
        together.log_px, torch.cat([one.log_px for one in apart]), atol=1e-6, rtol=0
    )
    torch.testing.assert_close(
        together.elbo, torch.cat([one.elbo for one in apart]), atol=1e-6, rtol=0
    )


# The aggregate posterior


def mixture_guide(scale: float) -> tuple[VAE, Tensor, Tensor]:
    """A guide whose aggregate posterior is a mixture of three normals in the plane."""
    truth = LinearGaussian(latent=2, observed=3)
    x = truth.data(3)
    vae = truth.vae(nn.Identity())
    loc = torch.tensor([[0.0, 0.0], [1.0, 1.0], [-1.0, 0.5]], dtype=torch.float64)

    def guide(x: Tensor, loc: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, scale).to_event(1))

    vae.guide = guide
    return vae, x, loc


def test_kl_decomposition_is_the_quadrature():
    scale, grid = 0.6, torch.linspace(-5, 5, 501, dtype=torch.float64)
    vae, x, loc = mixture_guide(scale)
    torch.manual_seed(0)
    parts = kl_decomposition(lambda x, loc: vae.model(x), vae.guide, x, loc, num_draws=30_000)
    normal = torch.distributions.Normal
    factors = normal(loc, scale).log_prob(grid.reshape(-1, 1, 1)).exp()  # (G, 3, 2)
    q = torch.einsum("gn,hn->gh", factors[..., 0], factors[..., 1]) / 3
    q_d, p_d, cell = (
        factors.mean(1),
        normal(0.0, 1.0).log_prob(grid).exp(),
        (grid[1] - grid[0]) ** 2,
    )
    conditional_entropy = 2 * normal(loc[0, 0], scale).entropy()
    information = -(q * q.clamp(min=1e-300).log()).sum() * cell - conditional_entropy
    correlation = (
        q * (q.clamp(min=1e-300) / (q_d[:, None, 0] * q_d[None, :, 1])).log()
    ).sum() * cell
    dimensions = (q_d * (q_d / p_d[:, None]).log()).sum(0) * cell.sqrt()
    assert parts.mutual_information == pytest.approx(
        float(information), abs=4 * parts.mutual_information_standard_error
    )
    assert parts.total_correlation == pytest.approx(
        float(correlation), abs=0.01
    )  # four standard errors
    torch.testing.assert_close(parts.dimension_wise_kl, dimensions, atol=0.02, rtol=0)
    assert parts.kl == pytest.approx(parts.mutual_information + parts.marginal_kl)
    assert parts.marginal_kl == pytest.approx(
        parts.total_correlation + float(parts.dimension_wise_kl.sum())
    )


@pytest.mark.parametrize(
    "q",
    [
        dist.Normal(torch.randn(5, 3), 0.3).to_event(1),
        dist.MultivariateNormal(
            torch.zeros(5, 3), torch.tensor([[2.0, 0.5, 0.0], [0.5, 1.0, 0.2], [0.0, 0.2, 0.5]])
        ),
        dist.LowRankMultivariateNormal(torch.zeros(5, 3), torch.ones(5, 3, 1), torch.ones(5, 3)),
    ],
)
def test_marginals_have_the_moments(q):
    assert marginals(q).event_shape == ()
    torch.testing.assert_close(marginals(q).mean, q.mean)
    torch.testing.assert_close(marginals(q).variance, q.variance)


# Any pair of programs


@pytest.mark.parametrize("supervised", [False, True])
def test_pyros_examples_evaluate_unmodified(supervised):
    torch.manual_seed(0)
    m2 = ExampleM2().double()
    args = (m2.images(), m2.labels()) if supervised else (m2.images(),)
    result = evaluate(m2.model, m2.guide, *args, num_samples=4000)
    joint = [
        evaluate(
            m2.model,
            m2.guide,
            m2.images(),
            torch.eye(3).double()[c].expand(6, -1),
            num_samples=4000,
        )
        for c in range(3)
    ]
    each = torch.stack([one.log_px for one in joint])  # log p(x, y) for every y
    truth = each[torch.arange(6) % 3, torch.arange(6)] if supervised else each.logsumexp(0)
    error = (
        result.standard_error**2
        + torch.stack([one.standard_error for one in joint]).square().amax(0)
    ).sqrt()
    assert bool(((result.log_px - truth).abs() < 4 * error).all())


def test_pyros_vae_example_evaluates_unmodified():
    """Trained by Pyro's own SVI, evaluated as it is, against quadrature over its two latents."""
    torch.manual_seed(0)
    vae = ExampleVAE().double()
    x = vae.images()
    svi = pyro.infer.SVI(
        vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-2}), pyro.infer.Trace_ELBO()
    )
    with pyro.get_param_store().scope():
        for _ in range(100):
            svi.step(x)
        result = evaluate(vae.model, vae.guide, x, num_samples=4000)
    axis = torch.linspace(-6, 6, 121, dtype=torch.float64)
    z = torch.cartesian_prod(axis, axis)
    log_pz = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(-1)
    log_px = (
        torch.distributions.Bernoulli(vae.decoder(z).detach()).log_prob(x.reshape(6, 1, -1)).sum(-1)
    )
    quadrature = (log_px + log_pz).logsumexp(-1) + 2 * math.log(0.1)
    assert bool(((result.log_px - quadrature).abs() < 4 * result.standard_error).all())
    assert result.num_observed == 16
    assert len(pyro.get_param_store()) == 0


class NoPlateAround:
    """One row per datum, and no plate that says so."""

    @staticmethod
    def model(x: Tensor) -> None:
        z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), 2), 1.0).to_event(1))
        pyro.sample(
            "x", dist.Normal(z.sum(-1, keepdim=True), 1.0).expand(x.shape).to_event(1), obs=x
        )

    @staticmethod
    def guide(x: Tensor) -> None:
        pyro.sample("z", dist.Normal(x[:, :2], 1.0).to_event(1))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda x: evaluate(NoPlateAround.model, NoPlateAround.guide, x, num_samples=10),
            "expected a plate with one row per datum",
        ),
        (
            lambda x: evaluate(*plain(), x, num_samples=0),
            "expected num_samples of at least 1, got 0",
        ),
        (
            lambda x: evaluate(*plain(), x, num_samples=10, chunk_bytes=0),
            "expected chunk_bytes of at least 1, got 0",
        ),
        (
            lambda x: kl_decomposition(*plain(), x, num_draws=1),
            "expected num_draws of at least 2, got 1",
        ),
        (
            lambda x: evaluate(*plain(), num_samples=10),
            "expected tensor arguments with one row per datum",
        ),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call(PER_DATUM["vae"]().args[0])


def plain():
    p = PER_DATUM["vae"]()
    return p.model, p.guide


def test_scales_are_no_part_of_the_kl():
    """A scale is a weight in an objective; the KL is that of the programs."""

    def model(x, scale):
        with pyro.plate("data", len(x)):
            with pyro.poutine.scale(scale=scale):
                z = pyro.sample("z", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    def guide(x, scale):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / 2, 0.7).to_event(1))

    x = torch.linspace(-2, 2, 12).reshape(6, 2)
    found = {}
    for scale in (1.0, 0.5):
        torch.manual_seed(0)
        found[scale] = kl_decomposition(model, guide, x, scale, num_draws=60)
    assert found[0.5].summary() == found[1.0].summary()
