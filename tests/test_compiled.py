"""The compiled step and evaluation do what the eager ones do.

Objectives, families and likelihoods are each compared once: they do not interact in a graph. Most
graphs are traced and run operation by operation, which is quick; some are compiled.
"""

import copy
import enum
import itertools

import pyro
import pytest
import torch
from families import FAMILIES, PRIORS, prior_for
from programs import PAIRS, PIXELS, SemiSupervised, binary, labels, pair
from pyro.infer import config_enumerate
from pyro.nn import PyroModule, pyro_method
from torch import nn

import pyro_vae.programs.graphs as compiled
from pyro_vae import (
    SVI,
    VAE,
    Bernoulli,
    DiagonalNormal,
    StandardNormal,
    Trace_ELBO,
    TraceMeanField_ELBO,
    linear,
    log_likelihood,
    mlp,
)
from pyro_vae.evaluation.importance import Scorer
from pyro_vae.families.bernoulli import ContinuousBernoulli
from pyro_vae.families.counts import Binomial
from pyro_vae.families.logistic import DiscretizedLogistic
from pyro_vae.families.normal import Normal
from pyro_vae.inference.graph_step import GraphGradients
from pyro_vae.inference.step import EagerGradients
from pyro_vae.nets.precision import BFloat16
from pyro_vae.nets.residual import residual_decoder, residual_encoder
from pyro_vae.objectives import (
    IWAE,
    STL,
    DReG,
    FreeBits,
    InfoVAE,
    Renyi,
    ReweightedWakeSleep,
    ScoreFunction_ELBO,
)
from pyro_vae.objectives.objective import Estimate, Objective
from pyro_vae.programs.compiler import CannotCompile
from pyro_vae.programs.pair import Pair

D, Z, B = 5, 3, 4

LIKELIHOODS = {
    "bernoulli": (lambda: Bernoulli(mlp(Z, 8, D)), lambda u: u > 0.5),
    "continuous bernoulli": (lambda: ContinuousBernoulli(mlp(Z, 8, D)), lambda u: u),
    "normal": (lambda: Normal(mlp(Z, 8, D), scale=0.5, learned=True), lambda u: u),
    "binomial": (lambda: Binomial(mlp(Z, 8, D), 16), lambda u: (16 * u).round()),
    "discretized logistic": (
        lambda: DiscretizedLogistic(mlp(Z, 8, 2 * D)),
        lambda u: (255 * u).round(),
    ),
}
OBJECTIVES = {
    "elbo": Trace_ELBO(beta=0.5),
    "elbo, 3 particles": Trace_ELBO(num_particles=3),
    "annealed": Trace_ELBO(beta=linear(10)),
    "analytic": TraceMeanField_ELBO(),
    "iwae": IWAE(3),
    "dreg": DReG(3),
    "stl": STL(3),
    "renyi": Renyi(3, alpha=0.5),
    "score function": ScoreFunction_ELBO(3),
    "wake sleep": ReweightedWakeSleep(3),
    "free bits": FreeBits(0.5),
    "mmd": InfoVAE(),
}


def vae_and_data(likelihood="bernoulli", family="diagonal", prior=None):
    """A small VAE and its data in float64: 1e-5 leaves room for rounding alone."""
    torch.manual_seed(0)
    make, of_uniform = LIKELIHOODS[likelihood]
    p = PRIORS[prior](Z) if prior else prior_for(family, Z)
    vae = VAE(p, make(), FAMILIES[family](D, Z)).train().double()
    return vae, of_uniform(torch.rand(B, D)).double()


def run(gradients, objective, call, parameters, seed=1):
    """Estimate and gradients."""
    for p in parameters:
        p.grad = None
    torch.manual_seed(seed)
    estimate = gradients(objective.at(3), call)
    return [value.detach() for value in estimate], [p.grad for p in parameters]


def agree(model, guide, objective, *calls, **tolerance):
    """Assert that the graph gives the estimates and gradients of the programs on some calls."""
    programs = Pair(model, guide)
    with programs.isolated():
        programs.structure((calls[0], {}))  # finds the modules
    parameters = [p for module in programs.modules for p in module.parameters()]
    graph = GraphGradients(programs, torch.optim.SGD(parameters, lr=0.1))
    for call in calls:
        expected = run(EagerGradients(programs), objective, (call, {}), parameters)
        assert any(grad is not None for grad in expected[1])
        got = run(graph, objective, (call, {}), parameters)
        torch.testing.assert_close(got, expected, **({"rtol": 1e-5, "atol": 1e-5} | tolerance))


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_each_likelihood(traced_only, likelihood):
    vae, x = vae_and_data(likelihood)
    agree(vae.model, vae.guide, Trace_ELBO(), (x,))


@pytest.mark.parametrize("family", FAMILIES)
def test_each_guide(traced_only, family):
    vae, x = vae_and_data(family=family)
    agree(vae.model, vae.guide, Trace_ELBO(), (x,))


@pytest.mark.parametrize("prior", PRIORS)
def test_each_prior(traced_only, prior):
    vae, x = vae_and_data(prior=prior)
    agree(vae.model, vae.guide, Trace_ELBO(), (x,))


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_each_objective(traced_only, objective):
    vae, x = vae_and_data()
    agree(vae.model, vae.guide, OBJECTIVES[objective], (x,))


# Programs


@pytest.mark.parametrize("name", ["bottom-up", "nested plates", "pyro style", "global latent"])
def test_programs_with_rows_for_each_draw(traced_only, name):
    p = PAIRS[name]()
    objective = Trace_ELBO(3) if name == "global latent" else IWAE(3)
    agree(p.model, p.guide, objective, p.args)


def test_plain_functions(traced_only):
    vae, x = vae_and_data()
    agree(lambda x: vae.model(x), lambda x: vae.guide(x), IWAE(3), (x,))


def test_labelled_and_enumerated_batches(traced_only):
    """One graph each; on labelled data the encoder of labels is idle, and stays where it is."""
    p = pair(SemiSupervised)
    guide, x = config_enumerate(p.guide), binary()
    agree(p.model, guide, Trace_ELBO(), (x, labels()), (x, None), (x, labels()))


class ConvVAE(PyroModule):
    """Convolutions, which take no further dimension on the left of (B, C, H, W)."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(1, 4, 3, stride=2), nn.Flatten(), nn.Linear(36, 4))
        self.decoder = nn.Sequential(
            nn.Linear(2, 36), nn.Unflatten(1, (4, 3, 3)), nn.ConvTranspose2d(4, 1, 4, stride=2)
        )

    @pyro_method
    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", pyro.distributions.Normal(x.new_zeros(len(x), 2), 1.0).to_event(1))
            logits = self.decoder(z)
            pyro.sample("x", pyro.distributions.Bernoulli(logits=logits).to_event(3), obs=x)

    @pyro_method
    def guide(self, x):
        with pyro.plate("data", len(x)):
            loc, log_scale = self.encoder(x).chunk(2, -1)
            pyro.sample("z", pyro.distributions.Normal(loc, log_scale.exp()).to_event(1))


def test_convolutions_under_iwae(traced_only):
    torch.manual_seed(0)
    vae, x = ConvVAE().double(), torch.rand(4, 1, 8, 8).round().double()
    agree(vae.model, vae.guide, IWAE(3), (x,))


# Steps


def dense():
    return VAE(StandardNormal(2), Bernoulli(mlp(2, 16, 64)), DiagonalNormal(mlp(64, 16, 4)))


def linear_vae(pixels=64, latents=2):
    """Linear networks have half the kernels, each of which costs the compiler a second."""
    encoder = DiagonalNormal(mlp(pixels, 2 * latents))
    return VAE(StandardNormal(latents), Bernoulli(mlp(latents, pixels)), encoder)


def residual():
    return VAE(
        StandardNormal(2),
        Bernoulli(residual_decoder(2, (1, 28, 28))),
        DiagonalNormal(residual_encoder((1, 28, 28), 4)),
    ).double()


def bfloat16():
    return VAE(
        StandardNormal(2),
        Bernoulli(BFloat16(mlp(2, 16, 64))),
        DiagonalNormal(BFloat16(mlp(64, 16, 4))),
    )


def adam(ps):
    return torch.optim.Adam(ps, lr=1e-2)


OPTIMISERS = {
    "adam": adam,
    "adamw": lambda ps: torch.optim.AdamW(ps, lr=1e-2, weight_decay=0.1),
    "amsgrad": lambda ps: torch.optim.Adam(ps, lr=1e-2, amsgrad=True, betas=(0.8, 0.99), eps=1e-4),
    "two groups": lambda ps: torch.optim.Adam(
        [{"params": ps[:3], "lr": 1e-3, "weight_decay": 0.1}, {"params": ps[3:]}], lr=1e-2
    ),
    "groups with other betas": lambda ps: torch.optim.Adam(
        [{"params": ps[:3], "betas": (0.5, 0.9)}, {"params": ps[3:], "lr": 1e-3}], lr=1e-2
    ),
    "sgd": lambda ps: torch.optim.SGD(ps, lr=1e-4, momentum=0.9, weight_decay=0.1),
    "adagrad": lambda ps: torch.optim.Adagrad(ps, lr=1e-2),
}


def trained(
    make, size, optimiser, *, compile, steps=4, clip_norm=None, batches=(8,), loss=None, together=0
):
    """Train for some steps; return the losses, the VAE's tensors and the inference.

    So many steps are taken ``together`` in a call, or one by one.
    """
    torch.manual_seed(0)
    vae = make().train()
    data = (torch.rand(max(batches), size) < 0.3).to(next(vae.parameters()))
    optim = optimiser(list(vae.parameters()))
    loss = loss or Trace_ELBO(beta=linear(3))
    svi = SVI(vae.model, vae.guide, optim, loss, compile=compile, clip_norm=clip_norm)
    torch.manual_seed(1)
    given = [(data[:b],) for b in itertools.islice(itertools.cycle(batches), steps)]
    if together:
        calls = [given[i : i + together] for i in range(0, steps, together)]
        losses = [estimate.loss for call in calls for estimate in svi.steps(call)]
    else:
        losses = [svi.step(*batch) for batch in given]
    return torch.stack(losses), vae.state_dict(), svi


def assert_same_training(make, size, optimiser, rtol=1e-4, atol=1e-4, **options):
    a, b = (trained(make, size, optimiser, compile=c, **options) for c in (False, True))
    torch.testing.assert_close(b[:2], a[:2], rtol=rtol, atol=atol)
    states = [each[2].optim.state_dict()["state"] for each in (a, b)]
    torch.testing.assert_close(states[1], states[0], rtol=rtol, atol=atol)


def num_graphs(svi):
    steps = svi._steps
    return len(getattr(steps, "gradients", steps).graphs._graphs)


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_each_optimiser(traced_only, optimiser):
    """Weights, and the state that stays in the optimiser."""
    assert_same_training(dense, 64, OPTIMISERS[optimiser])


def test_compiled_adam_with_clipped_gradients():
    """By the compiler: losses and weights of each step, so its random numbers too, are equal."""
    assert_same_training(linear_vae, 64, adam, clip_norm=0.5)


def test_batch_norm(traced_only):
    """In float64: BatchNorm enlarges what float32 rounds. Not Adam, which takes a sign of it."""
    assert_same_training(residual, 784, OPTIMISERS["sgd"], steps=3)


def test_bfloat16_products(traced_only):
    """bf16 rounds at 0.4 %."""
    assert_same_training(bfloat16, 64, OPTIMISERS["sgd"], steps=3, rtol=0.05, atol=0.03)


def test_pyros_own_elbo(traced_only):
    assert_same_training(dense, 64, adam, loss=pyro.infer.Trace_ELBO())


@pytest.mark.parametrize("optimiser", [adam, OPTIMISERS["sgd"]])
def test_idle_parameters_stay(traced_only, optimiser):
    """As with torch's optimisers, weight decay does not move what has no gradient."""
    p = pair(SemiSupervised, binary(), labels())
    before = {name: value.clone() for name, value in p.module.state_dict().items()}
    svi = SVI(p.model, p.guide, optimiser(list(p.module.parameters())), Trace_ELBO(), compile=True)
    svi.step(*p.args)
    moved = {n for n, value in p.module.state_dict().items() if not value.equal(before[n])}
    assert moved == {name for name in before if not name.startswith("encoder_y")}


def test_ragged_batches_cost_one_graph_each(traced_only):
    *_, svi = trained(dense, 64, adam, compile=True, steps=6, batches=(8, 8, 5))
    assert num_graphs(svi) == 2


@pytest.mark.parametrize("optimiser", [adam, OPTIMISERS["sgd"]])
@pytest.mark.parametrize("compile", [False, True])
def test_several_steps_are_those_of_each(traced_only, optimiser, compile):
    """Also with beta that changes, and batches of other sizes in between: two graphs."""
    options = {"steps": 8, "batches": (8, 8, 5), "compile": compile}
    each = trained(residual, 784, optimiser, **options)
    together = trained(residual, 784, optimiser, **options, together=3)
    torch.testing.assert_close(together[:2], each[:2], rtol=0, atol=0)
    states = [svi.optim.state_dict()["state"] for *_, svi in (each, together)]
    torch.testing.assert_close(states[1], states[0], rtol=0, atol=0)
    assert [svi.num_steps for *_, svi in (each, together)] == [8, 8]
    if compile:
        assert num_graphs(together[2]) == 2


def test_learning_rate_may_start_at_zero(traced_only):
    """A pixel that is never lit has no gradient; zero times the update it would get is zero."""
    vae = dense()
    before = {name: p.clone() for name, p in vae.state_dict().items()}
    optim = torch.optim.Adam(vae.parameters(), lr=0.0)
    SVI(vae.model, vae.guide, optim, Trace_ELBO(), compile=True).step(torch.zeros(8, 64))
    torch.testing.assert_close(dict(vae.state_dict()), before, rtol=0, atol=0)


def test_annealing_and_learning_rates_compile_nothing_anew(traced_only):
    *_, svi = trained(dense, 64, adam, compile=True, steps=3)
    for lr in (1e-3, 1e-4):
        svi.optim.param_groups[0]["lr"] = lr
        svi.step(torch.zeros(8, 64))
    assert num_graphs(svi) == 1


def replaced(vae, svi):
    """Other storage for a weight, other buffers, and the optimiser's state from a file."""
    first = next(vae.parameters())
    first.data = 0.5 * first.data
    for module in vae.modules():
        for name, value in module._buffers.items():
            module._buffers[name] = value + 1 if value.is_floating_point() else value
    svi.optim.load_state_dict(copy.deepcopy(svi.optim.state_dict()))


CHANGES = {
    "learning rate": lambda vae, svi: svi.optim.param_groups[0].update(lr=0.5),
    "betas": lambda vae, svi: svi.optim.param_groups[0].update(betas=(0.1, 0.5)),
    "weight decay": lambda vae, svi: svi.optim.param_groups[-1].update(weight_decay=0.9),
    "a layer is frozen": lambda vae, svi: next(vae.decoder.parameters()).requires_grad_(False),
    "eval": lambda vae, svi: vae.eval(),
    "state": lambda vae, svi: svi.optim.state.clear(),
    "tensors": replaced,
}


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("together", [1, 2])
def test_a_step_sees_what_has_changed_since_the_last(traced_only, name, together):
    """As a step does that looks up everything, and other than without the change."""
    results = []
    for change, anew in ((CHANGES[name], False), (CHANGES[name], True), (lambda *_: None, False)):
        *_, svi = trained(residual, 784, OPTIMISERS["two groups"], compile=True, steps=2)
        vae = svi.model.__self__
        data = torch.rand(8, 784, generator=torch.Generator().manual_seed(0)) < 0.3
        losses = []
        for call in range(5):
            if call == 2:
                change(vae, svi)
            if anew:
                svi._steps._key = None
            batches = [(data.to(next(vae.parameters())),)] * together
            losses += [estimate.loss for estimate in svi.steps(batches)]
        results.append([torch.stack(losses), dict(vae.state_dict())])
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=0)
    assert not results[0][0].equal(results[2][0])


class Scaled(nn.Module):
    """Programs with an argument that is no tensor."""

    def __init__(self):
        super().__init__()
        self.vae = dense()

    def model(self, x, scale):
        with pyro.poutine.scale(scale=scale.value):
            self.vae.model(x)

    def guide(self, x, scale):
        with pyro.poutine.scale(scale=scale.value):
            self.vae.guide(x)


class Scale(enum.Enum):
    ONE = 1.0
    TWO = 2.0


def test_an_argument_that_is_no_tensor_may_change(traced_only):
    x, losses = torch.ones(8, 64), []
    for compile in (True, False):
        torch.manual_seed(0)
        pair = Scaled()
        optim = torch.optim.Adam(pair.parameters(), lr=1e-3)
        svi = SVI(pair.model, pair.guide, optim, Trace_ELBO(), compile=compile)
        torch.manual_seed(1)
        scales = (Scale.ONE, Scale.TWO, Scale.TWO, Scale.ONE)
        losses.append(torch.stack([svi.step(x, scale) for scale in scales]))
    torch.testing.assert_close(*losses)


def test_a_module_put_in_eval_mode_is_another_graph(traced_only):
    encoder = DiagonalNormal(nn.Sequential(nn.Linear(64, 4), nn.BatchNorm1d(4)))
    vae = VAE(StandardNormal(2), Bernoulli(mlp(2, 64)), encoder).train()
    svi = SVI(vae.model, vae.guide, torch.optim.Adam(vae.parameters()), Trace_ELBO(), compile=True)
    norm = vae.encoder.net[1]
    seen = []
    for mode in (True, False, True):
        norm.train(mode)
        svi.step(torch.eye(64)[:8])
        seen.append(int(norm.num_batches_tracked))
    assert seen == [1, 1, 2]
    assert num_graphs(svi) == 2


def test_many_shapes_run_eagerly_beyond_the_limit(traced_only):
    losses, _, svi = trained(dense, 64, adam, compile=True, steps=7, batches=range(2, 9))
    assert num_graphs(svi) == compiled.MAX_GRAPHS
    assert losses.isfinite().all()


def test_compiled_evaluation_equals_eager(traced_only):
    p, values = PAIRS["bottom-up"](), []
    for mode in (False, True):
        torch.manual_seed(2)
        options = {"num_samples": 20, "chunk_bytes": 8000, "compile": mode}
        values.append(log_likelihood(p.model, p.guide, *p.args, **options))
    torch.testing.assert_close(values[1], values[0])


def test_global_state_is_left_alone(traced_only):
    def flags():
        validation = torch.distributions.Distribution._validate_args
        return validation, pyro.settings.get("validate_infer"), torch.is_grad_enabled()

    before = flags()
    trained(dense, 64, adam, compile=True, steps=1)
    assert flags() == before
    assert len(pyro.get_param_store()) == 0


# Refusals


class Tempered(nn.Module):
    """A network with a number."""

    def __init__(self):
        super().__init__()
        self.net, self.temperature = mlp(PIXELS, 8, 4), 1.0

    def forward(self, x):
        return self.net(x) * self.temperature


def tempered():
    return VAE(StandardNormal(2), Bernoulli(mlp(2, 8, PIXELS)), DiagonalNormal(Tempered())).double()


def test_a_number_that_changes_is_refused(traced_only):
    vae, x = tempered(), binary()
    svi = SVI(vae.model, vae.guide, torch.optim.Adam(vae.parameters()), Trace_ELBO(), compile=True)
    svi.step(x)
    vae.encoder.net.temperature = 10.0
    with pytest.raises(
        ValueError, match=r"expected Tempered.temperature = 1.0, .*, got 10.0: make"
    ):
        svi.step(x)


def test_a_number_that_changes_is_refused_in_evaluation(traced_only):
    vae, x = tempered(), binary()
    scorer = Scorer(vae.model, vae.guide, compile=True)
    log_likelihood(vae.model, vae.guide, x, num_samples=2, compile=scorer)
    vae.encoder.net.temperature = 10.0
    with pytest.raises(
        ValueError, match=r"expected Tempered.temperature = 1.0, .*, got 10.0: make"
    ):
        log_likelihood(vae.model, vae.guide, x, num_samples=2, compile=scorer)


class Warming(nn.Module):
    """A network that counts its runs, and depends on them."""

    def __init__(self):
        super().__init__()
        self.net, self.runs = mlp(PIXELS, 8, 4), 0

    def forward(self, x):
        self.runs += 1
        return self.net(x) * min(1.0, self.runs / 100)


def test_a_number_that_the_run_itself_changes_is_refused(traced_only):
    vae = VAE(StandardNormal(2), Bernoulli(mlp(2, 8, PIXELS)), DiagonalNormal(Warming())).double()
    svi = SVI(vae.model, vae.guide, torch.optim.Adam(vae.parameters()), Trace_ELBO(), compile=True)
    with pytest.raises(ValueError, match=r"expected Warming.runs = \d, which the compiled graph"):
        svi.step(binary())


class Halving(Trace_ELBO):
    """An objective that writes to its beta."""

    def score(self, pair, args, kwargs):
        draw = pair.draw(args, kwargs)
        weight = torch.as_tensor(self.beta)
        weight *= 0.5
        return Estimate.of(draw, -draw.total(draw.log_likelihood - weight * draw.kl))


def test_an_objective_may_write_to_its_beta(traced_only):
    """Also where a learning rate is the same number."""

    def optimiser(parameters):
        return torch.optim.Adam(parameters, lr=0.5)

    assert_same_training(dense, 64, optimiser, loss=Halving(beta=0.5))


class Reconstruction(Objective):
    """An objective without beta, which its constructor does not build from fields."""

    def __init__(self, weight):
        object.__setattr__(self, "weight", weight)

    def score(self, pair, args, kwargs):
        draw = pair.draw(args, kwargs)
        return Estimate.of(draw, -self.weight * draw.total(draw.log_likelihood))


def test_an_objective_may_have_its_own_constructor(traced_only):
    assert_same_training(dense, 64, adam, loss=Reconstruction(2.0))


def test_a_number_of_the_objective_that_changes_is_refused(traced_only):
    *_, svi = trained(dense, 64, adam, compile=True, loss=Reconstruction(2.0))
    object.__setattr__(svi.objective, "weight", 3.0)
    with pytest.raises(ValueError, match=r"expected Reconstruction.weight = 2.0, .* got 3.0"):
        svi.step(torch.zeros(8, 64))


class CountsEight(nn.Module):
    """Counts the batches of eight data."""

    def __init__(self):
        super().__init__()
        self.net, self.runs = mlp(64, 4), 0

    def forward(self, x):
        self.runs += len(x) == 8
        return self.net(x)


def test_a_number_that_changes_is_refused_beyond_the_limit_of_graphs(traced_only):
    """Within several steps in a call."""
    vae = VAE(StandardNormal(2), Bernoulli(mlp(2, 64)), DiagonalNormal(CountsEight()))
    svi = SVI(vae.model, vae.guide, adam(list(vae.parameters())), Trace_ELBO(), compile=True)
    for rows in range(1, 1 + compiled.MAX_GRAPHS):
        svi.step(torch.zeros(rows, 64))
    with pytest.raises(ValueError, match=r"expected CountsEight.runs = \d, .* got \d"):
        svi.steps([(torch.zeros(8, 64),)] * 3)


@pytest.mark.parametrize("shape", [(), (1,)])
def test_a_learning_rate_may_be_a_tensor(traced_only, shape):
    """Also of a parameter of shape ()."""

    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.scale = mlp(64, 8, 4), nn.Parameter(torch.tensor(0.5))

        def forward(self, x):
            return self.scale * self.net(x)

    def make():
        return VAE(StandardNormal(2), Bernoulli(mlp(2, 8, 64)), DiagonalNormal(Scaled())).double()

    def optimiser(parameters):
        return torch.optim.Adam(parameters, lr=torch.full(shape, 1e-2), fused=True)

    assert_same_training(make, 64, optimiser)


def test_control_flow_on_values_is_refused_in_one_sentence():
    class Branching(VAE):
        @pyro_method
        def model(self, x):
            if x.sum() > 0:
                super().model(x)

    vae = Branching(StandardNormal(2), Bernoulli(mlp(2, 64)), DiagonalNormal(mlp(64, 4)))
    svi = SVI(vae.model, vae.guide, torch.optim.Adam(vae.parameters()), Trace_ELBO(), compile=True)
    with pytest.raises(CannotCompile, match=r"cannot compile these programs .* use the eager path"):
        svi.step(torch.ones(3, 64))


def test_missing_compiler_is_refused_in_one_sentence(monkeypatch):
    def fail(*args):
        raise RuntimeError("No working C++ compiler found\nmore lines")

    monkeypatch.setattr(torch._inductor, "compile", fail)
    message = r"\(No working C\+\+ compiler found\): use the eager path"
    with pytest.raises(CannotCompile, match=message):
        trained(dense, 64, adam, compile=True, steps=1)
