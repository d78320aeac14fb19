"""The objectives against Pyro's own, against closed forms, and in what they promise."""

import itertools
import math

import pyro
import pyro.distributions as dist
import pyro.infer
import pytest
import torch
from linear_gaussian import LinearGaussian
from programs import PAIRS, PER_DATUM, Pair, binary, fixed_draws, pair, plain_vae, vae
from pyro import poutine
from pyro.distributions import TransformedDistribution, transforms
from pyro.nn import PyroModule, pyro_method
from torch import nn

from pyro_vae import IWAE, DiagonalNormal, Trace_ELBO, TraceMeanField_ELBO, cyclical, linear, mlp
from pyro_vae.objectives import Renyi, ScoreFunction_ELBO
from pyro_vae.programs.pair import Pair as PairOfPrograms

ELBOS = {
    "sampled": (Trace_ELBO, pyro.infer.Trace_ELBO),
    "analytic": (TraceMeanField_ELBO, pyro.infer.TraceMeanField_ELBO),
}
OURS = {name: ours for name, (ours, _) in ELBOS.items()}


def every(objectives, pairs):
    """Each objective with each pair of programs, but for the pair that has no analytic KL."""
    return [
        pytest.param(objective, make, id=f"{name}-{title}")
        for (name, objective), (title, make) in itertools.product(objectives.items(), pairs.items())
        if (name, title) != ("analytic", "bottom-up")
    ]


def vectorized(programs):
    """Whether ours draws all particles in one run: then Pyro's random numbers have that order."""
    made = PairOfPrograms(programs.model, programs.guide)
    with made.isolated():
        found = made.structure((programs.args, {}))
    return found.vectorized and not found.whole


def ours(objective, programs):
    """Value and gradients of an objective of ours."""
    programs.module.zero_grad()
    torch.manual_seed(1)
    estimate = objective.estimate(programs.model, programs.guide, *programs.args)
    estimate.loss.backward()
    return estimate, programs.named_gradients()


def pyros(elbo, programs, model=None, guide=None):
    """Value and gradients of one of Pyro's ELBOs."""
    programs.module.zero_grad()
    torch.manual_seed(1)
    with pyro.get_param_store().scope():
        loss = elbo.differentiable_loss(
            model or programs.model, guide or programs.guide, *programs.args
        )
        loss.backward()
    return loss, programs.named_gradients()


def assert_same(value, gradients, expected, expected_gradients):
    torch.testing.assert_close(value, torch.as_tensor(expected, dtype=value.dtype))
    assert gradients.keys() == expected_gradients.keys()
    assert gradients
    for name, gradient in gradients.items():
        torch.testing.assert_close(
            gradient, expected_gradients[name], msg=lambda m, name=name: f"{name}: {m}"
        )


@pytest.mark.parametrize("num_particles", [1, 5])
@pytest.mark.parametrize(("elbos", "make"), every(ELBOS, PAIRS))
def test_value_and_gradients_are_pyros(elbos, make, num_particles):
    (mine, theirs), programs = elbos, make()
    estimate, gradients = ours(mine(num_particles), programs)
    expected = pyros(
        theirs(
            num_particles,
            max_plate_nesting=programs.nesting,
            vectorize_particles=vectorized(programs),
        ),
        programs,
    )
    assert_same(estimate.loss, {name: g.clone() for name, g in gradients.items()}, *expected)
    torch.testing.assert_close(estimate.elbo, -estimate.loss.detach())


def scale_latents(program, beta):
    """The same program with its latent sites scaled, as annealing is written by hand."""

    class scale(poutine.messenger.Messenger):
        def _pyro_sample(self, msg):
            if not msg["is_observed"] and not poutine.util.site_is_subsample(msg):
                msg["scale"] = beta * msg["scale"]

    return lambda *args: scale()(program)(*args)


@pytest.mark.parametrize("num_particles", [1, 4])
@pytest.mark.parametrize(("elbos", "make"), every(ELBOS, PAIRS))
def test_beta_scales_the_latent_sites_of_both_programs(elbos, make, num_particles):
    (mine, theirs), programs, beta = elbos, make(), 0.3
    estimate, gradients = ours(mine(num_particles, beta), programs)
    gradients = {name: g.clone() for name, g in gradients.items()}
    elbo = theirs(
        num_particles, max_plate_nesting=programs.nesting, vectorize_particles=vectorized(programs)
    )
    expected = pyros(
        elbo, programs, scale_latents(programs.model, beta), scale_latents(programs.guide, beta)
    )
    assert_same(estimate.loss, gradients, *expected)


@pytest.mark.parametrize("objective", OURS.values(), ids=OURS)
def test_log_likelihood_and_kl_are_never_annealed(objective):
    programs = vae()
    plain, _ = ours(objective(), programs)
    for beta in (0.0, 0.5, 4.0, torch.tensor(0.5)):
        annealed, _ = ours(objective(beta=beta), programs)
        torch.testing.assert_close(annealed[1:], plain[1:])
        torch.testing.assert_close(
            annealed.loss.detach(), float(beta) * plain.kl - plain.log_likelihood
        )
        torch.testing.assert_close(annealed.elbo, plain.elbo)


@pytest.mark.parametrize("schedule", [linear(10), cyclical(8), linear(4, 2.0, 0.5)])
@pytest.mark.parametrize("objective", OURS.values(), ids=OURS)
def test_a_schedule_is_its_beta_at_each_step(objective, schedule):
    programs = vae()
    for step in (0, 1, 3, 9, 20):
        annealed, gradients = ours(objective(beta=schedule).at(step), programs)
        gradients = {name: g.clone() for name, g in gradients.items()}
        assert_same(
            annealed.loss,
            gradients,
            *(lambda e, g: (e.loss, g))(*ours(objective(beta=schedule(step)), programs)),
        )


@pytest.mark.parametrize(("objective", "make"), every(OURS, PER_DATUM))
def test_loss_of_a_batch_is_the_sum_over_its_items(objective, make):
    programs = make()
    torch.manual_seed(1)
    pair = PairOfPrograms(programs.model, programs.guide)
    with pair.isolated():
        draw = pair.draw(programs.args, {})

    def loss(rows):
        """The loss of some rows at the draws of the whole batch."""
        z = {
            name: draw.structure.latents[name].to_rows(value[:, rows])
            for name, value in draw.values.items()
        }
        guide = fixed_draws(programs.guide, z)
        args = [arg[rows] for arg in programs.args]
        return objective(1, 0.7).estimate(programs.model, guide, *args).loss

    rows = list(range(len(programs.args[0])))
    torch.testing.assert_close(loss(rows), sum(loss([row]) for row in rows))


@pytest.mark.parametrize("objective", OURS.values(), ids=OURS)
def test_encoder_sees_each_datum_once_whatever_the_number_of_particles(objective):
    programs, rows = vae(), []
    made = PairOfPrograms(programs.model, programs.guide)
    with made.isolated():
        made.structure((programs.args, {}))
    programs.module.encoder.net.register_forward_hook(
        lambda module, args, out: rows.append(args[0].shape[:-1].numel())
    )
    for num_particles in (1, 2, 50):
        with made.isolated():
            objective(num_particles).score(made, programs.args, {})
    assert rows == [len(programs.args[0])] * 3


class Mixture(PyroModule):
    """A discrete latent: p(k) p(x | k), with guide q(k | x)."""

    def __init__(self, classes=3):
        super().__init__()
        self.prior, self.p_x, self.q_k = (
            nn.Parameter(torch.randn(classes)),
            nn.Parameter(torch.randn(classes, 12)),
            mlp(12, classes),
        )

    @pyro_method
    def model(self, x):
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Categorical(logits=self.prior))
            pyro.sample("x", dist.Bernoulli(logits=self.p_x[k]).to_event(1), obs=x)

    @pyro_method
    def guide(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("k", dist.Categorical(logits=self.q_k(x)))

    def elbo(self, x, beta=1.0):
        """The ELBO by enumeration."""
        log_q, log_p = self.q_k(x).log_softmax(-1), self.prior.log_softmax(-1)
        log_x = dist.Bernoulli(logits=self.p_x).to_event(1).log_prob(x.unsqueeze(1))
        return (log_q.exp() * (log_x + beta * (log_p - log_q))).sum()


def assert_unbiased(objective, programs, expected, repeats=60):
    """The mean of repeated gradients lies within 4.5 standard errors of the expected ones, for
    every entry."""
    gradients = []
    torch.manual_seed(2)
    for _ in range(repeats):
        programs.module.zero_grad()
        objective.estimate(programs.model, programs.guide, *programs.args).loss.backward()
        gradients.append(torch.cat([g.flatten() for g in programs.named_gradients().values()]))
    draws = torch.stack(gradients)
    error = draws.std(0) / math.sqrt(repeats)
    assert ((draws.mean(0) - expected).abs() <= 4.5 * error + 1e-9).all()
    return draws


def gradient_of(loss, module):
    module.zero_grad()
    loss.backward()
    return torch.cat([p.grad.flatten().clone() for p in module.parameters() if p.grad is not None])


@pytest.mark.parametrize("scale", [1.0, 0.2])
@pytest.mark.parametrize("beta", [1.0, 0.4])
@pytest.mark.parametrize("objective", OURS.values(), ids=OURS)
def test_score_gradient_is_unbiased_against_enumeration(objective, beta, scale):
    programs = pair(Mixture)
    expected = gradient_of(-scale * programs.module.elbo(programs.args[0], beta), programs.module)
    programs.model, programs.guide = (
        poutine.scale(programs.model, scale),
        poutine.scale(programs.guide, scale),
    )
    draws = assert_unbiased(objective(500, beta), programs, expected)
    assert draws.std(0).max() > 0


def test_score_gradient_with_a_baseline_of_annealed_sites():
    """The scales of the latent sites differ from those of the data."""
    programs = pair(Mixture)
    expected = gradient_of(-programs.module.elbo(programs.args[0], 0.4), programs.module)
    programs.model = scale_latents(programs.model, 0.4)
    programs.guide = scale_latents(programs.guide, 0.4)
    assert_unbiased(ScoreFunction_ELBO(500), programs, expected)


def test_score_gradient_of_a_global_site():
    """p(w) prod_b p(x_b | w), whose ELBO is known: its signal is the ELBO of all data."""
    x = torch.linspace(-1, 2, 5, dtype=torch.float64)
    module = nn.ParameterDict({"loc": torch.tensor(0.5), "raw": torch.tensor(-0.3)}).double()

    def model(x):
        w = pyro.sample("w", dist.Normal(0.0 * x[0], 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(w, 1.0), obs=x)

    def guide(x):
        pyro.sample("w", dist.Normal(module["loc"], module["raw"].exp()))

    q = torch.distributions.Normal(module["loc"], module["raw"].exp())
    kl = torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, 1.0))
    expected = gradient_of(((x - q.loc).square() + q.scale.square()).sum() / 2 + kl, module)
    assert_unbiased(ScoreFunction_ELBO(100), Pair(module, model, guide, (x,)), expected, repeats=20)


@pytest.mark.parametrize("alpha", [0.0, 0.5])
@pytest.mark.parametrize("K", [1, 2, 3])
def test_gradients_of_bounds_of_discrete_latents_against_enumeration(K, alpha):
    """E[1/(1-a) log 1/K sum_k w_k^(1-a)] as a sum over all K-tuples of classes."""
    programs = pair(Mixture)
    module, (x,) = programs.module, programs.args
    log_q = module.q_k(x).log_softmax(-1)
    log_x = dist.Bernoulli(logits=module.p_x).to_event(1).log_prob(x.unsqueeze(1))
    log_w = log_x + module.prior.log_softmax(-1) - log_q
    tuples = torch.cartesian_prod(*[torch.arange(3)] * K).reshape(-1, K)
    power = 1 - alpha
    bound = ((power * log_w[:, tuples]).logsumexp(-1) - math.log(K)) / power
    expected = gradient_of(-(log_q[:, tuples].sum(-1).exp() * bound).sum(), module)
    rows = programs.args[0].repeat(300, 1)  # as many draws
    many = Pair(module, programs.model, programs.guide, (rows,))
    objective = IWAE(K) if alpha == 0 else Renyi(K, alpha=alpha)
    assert_unbiased(objective, many, 300 * expected)


class Score(nn.Module):
    """The same conditional, sampled without reparameterisation."""

    def __init__(self, conditional):
        super().__init__()
        self.conditional = conditional

    def forward(self, h):
        return self.conditional(h).has_rsample_(False)


def test_score_gradient_is_unbiased_against_a_closed_form():
    """Of the guide's parameters the ELBO's gradient is that of -KL(q to posterior), known for
    linear-Gaussian models."""
    truth = LinearGaussian(latent=2, observed=4)
    x = truth.data(3)
    module = truth.vae(Score(truth.wrong_encoder()))
    q = module.encoder.conditional(x)
    q = torch.distributions.MultivariateNormal(q.loc, scale_tril=q.scale_tril)
    expected = gradient_of(
        torch.distributions.kl_divergence(q, truth.posterior(x)).sum(), module.encoder
    )
    assert_unbiased(
        Trace_ELBO(num_particles=2000),
        Pair(module.encoder, module.model, module.guide, (x,)),
        expected,
    )


def test_analytic_kl_refuses_flows():
    class Flow(nn.Module):
        def forward(self, x):
            base = dist.Normal(x.new_zeros(len(x), 3), 1.0).to_event(1)
            return TransformedDistribution(base, [transforms.TanhTransform()])

    module = plain_vae()
    module.encoder = Flow()
    with pytest.raises(TypeError, match="closed-form KL"):
        TraceMeanField_ELBO().estimate(module.model, module.guide, binary())


def test_analytic_kl_refuses_a_scale_of_the_model_alone():
    """KL(q to p) has one scale; Pyro's class takes the guide's, another number than the ELBO."""
    programs = vae()
    scaled = poutine.scale(programs.model, 0.4)
    with pytest.raises(ValueError, match=r"got 1\.0 in the guide and 0\.4 in the model at "):
        TraceMeanField_ELBO(3).estimate(scaled, programs.guide, *programs.args)


def test_analytic_kl_to_a_prior_that_depends_on_the_data():
    """K draws share a KL; in Pyro's runs the prior is computed for each of them."""
    programs = vae()
    module = programs.module
    module.p_z = nn.Linear(programs.args[0].shape[1], 3).double()

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(module.p_z(x), 0.7).to_event(1))
            pyro.sample("x", module.decoder(z), obs=x)

    programs.model = model
    estimate, gradients = ours(TraceMeanField_ELBO(4), programs)
    gradients = {name: g.clone() for name, g in gradients.items()}
    theirs = pyro.infer.TraceMeanField_ELBO(4, max_plate_nesting=1, vectorize_particles=True)
    assert_same(estimate.loss, gradients, *pyros(theirs, programs))


def test_analytic_kl_refuses_a_guide_in_another_order():
    """KL(q(z1 | x) to p(z1 | z2)) with z2 ~ q(z2 | z1) is no KL of a joint."""
    programs = PAIRS["bottom-up"]()
    with pytest.raises(
        ValueError, match=r"in its order \['z2', 'z1'\], got \['z1', 'z2'\]: use Trace_ELBO"
    ):
        TraceMeanField_ELBO().estimate(programs.model, programs.guide, *programs.args)


def test_analytic_kl_of_diagonal_normals_has_the_right_sign():
    module = plain_vae()
    q = module.encoder(binary()).base_dist
    m, s = q.loc, q.scale
    kl = -0.5 * (1 + s.square().log() - m.square() - s.square()).sum()
    torch.testing.assert_close(
        TraceMeanField_ELBO().estimate(module.model, module.guide, binary()).kl, kl.detach()
    )
    assert kl > 0


def test_auxiliary_sites_of_the_guide_count_as_entropy():
    """q(u | x) q(z | u) with a deterministic z: the density is that of u."""
    module = plain_vae()

    def guide(x):
        with pyro.plate("data", len(x)):
            u = pyro.sample("u", module.encoder(x), infer={"is_auxiliary": True})
            pyro.sample("z", dist.Delta(u, event_dim=1))

    torch.manual_seed(0)
    estimate = Trace_ELBO().estimate(module.model, guide, binary())
    torch.manual_seed(0)
    expected = Trace_ELBO().estimate(module.model, module.guide, binary())
    torch.testing.assert_close(estimate.loss, expected.loss)
    with pytest.raises(ValueError, match=r"in its order \['z'\], got \['u', 'z'\]"):
        TraceMeanField_ELBO().estimate(module.model, guide, binary())


@pytest.mark.parametrize("objective", OURS.values(), ids=OURS)
def test_wrong_arguments_are_refused(objective):
    with pytest.raises(ValueError, match="num_particles of at least 1, got 0"):
        objective(num_particles=0)
    with pytest.raises(ValueError, match="beta of at least 0, got -1"):
        objective(beta=-1.0)
    module = plain_vae()
    with pytest.raises(TypeError, match="got a schedule"):
        objective(beta=linear(10)).estimate(module.model, module.guide, binary())


def test_more_particles_mean_less_variance():
    programs = vae()
    torch.manual_seed(0)
    spread = [
        torch.stack(
            [
                Trace_ELBO(k).estimate(programs.model, programs.guide, *programs.args).loss
                for _ in range(50)
            ]
        ).std()
        for k in (1, 16)
    ]
    assert spread[1] < spread[0] / 2  # a quarter of it in expectation


def test_leading_dimensions_reach_no_network_of_the_guide_twice():
    """The decoder sees K rows per datum, all in one call."""
    programs, shapes = vae(), []
    made = PairOfPrograms(programs.model, programs.guide)
    with made.isolated():
        made.structure((programs.args, {}))
    programs.module.decoder.net.register_forward_hook(
        lambda module, args, out: shapes.append(tuple(args[0].shape))
    )
    with made.isolated():
        Trace_ELBO(num_particles=6).score(made, programs.args, {})
    assert shapes == [(6 * len(programs.args[0]), 3)]
    assert isinstance(programs.module.encoder, DiagonalNormal)
