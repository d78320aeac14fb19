"""The compiled step and evaluation do what the eager ones do."""

import itertools

import pyro
import pytest
import torch
from families import FAMILIES, PRIORS, prior_for
from pyro.nn import PyroModule, pyro_method
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_flatten

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
from pyro_vae.families.bernoulli import ContinuousBernoulli
from pyro_vae.families.counts import Binomial
from pyro_vae.families.logistic import DiscretizedLogistic
from pyro_vae.families.normal import Normal
from pyro_vae.inference.step import GraphStep
from pyro_vae.nets.conv import conv_decoder, conv_encoder
from pyro_vae.nets.precision import BFloat16
from pyro_vae.nets.residual import residual_decoder, residual_encoder
from pyro_vae.objectives.doubly_reparameterised import STL, DReG
from pyro_vae.objectives.free_bits import FreeBits
from pyro_vae.objectives.importance_weighted import IWAE
from pyro_vae.objectives.info import InfoVAE
from pyro_vae.objectives.renyi import Renyi
from pyro_vae.programs.graphs import (
    CannotCompile,
    CudaGraph,
    Graphs,
    Modules,
    Structure,
    compile_graph,
)
from pyro_vae.programs.isolation import isolated

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
    "free bits": FreeBits(0.5),
    "mmd": InfoVAE(),
}


def pair(likelihood="bernoulli", family="diagonal", prior=None, dtype=torch.float64):
    """A small VAE and its data; in float64, where 1e-5 leaves no room for a difference other than rounding."""
    torch.manual_seed(0)
    make, of_uniform = LIKELIHOODS[likelihood]
    p = PRIORS[prior](Z) if prior else prior_for(family, Z)
    vae = VAE(p, make(), FAMILIES[family](D, Z)).train().to(dtype)
    return vae, of_uniform(torch.rand(B, D)).to(dtype)


def eager(vae, objective, x, seed=1):
    """Loss and gradients by running the programs."""
    objective = objective.at(3) if hasattr(objective, "at") else objective
    torch.manual_seed(seed)
    with isolated(validate=False):
        estimate = objective(vae.model, vae.guide, x)
        estimate.loss.backward()
    grads = {name: p.grad for name, p in vae.named_parameters()}
    vae.zero_grad()
    return [value.detach() for value in estimate], grads


def graph(vae, objective, x, seed=1):
    """Loss and gradients from the graph."""
    objective = objective.at(3) if hasattr(objective, "at") else objective
    step = GraphStep(vae.model, vae.guide, torch.optim.SGD(vae.parameters(), lr=0.1))
    torch.manual_seed(seed)
    estimate = step.loss(objective, (x,), {})
    estimate.loss.backward()
    grads = {name: p.grad for name, p in vae.named_parameters()}
    vae.zero_grad()
    return [value.detach() for value in estimate], grads


@pytest.fixture
def same_draws():
    """Let compiled graphs draw from torch's own generator, as the eager path does."""
    with torch._inductor.config.patch(fallback_random=True):
        yield


@pytest.fixture
def traced_only(monkeypatch):
    """Trace as ever, but run the traced graph operation by operation: quick, for the many combinations."""
    monkeypatch.setattr(torch._inductor, "compile", lambda graph, inputs: graph)


def agree(vae, objective, x):
    for e, g in zip(eager(vae, objective, x), graph(vae, objective, x), strict=True):
        torch.testing.assert_close(g, e, rtol=1e-5, atol=1e-5)


def meaningful(objective, family):
    """Whether the eager path takes this combination; what it refuses has nothing to compare."""
    vae, x = pair(family=family)
    try:
        eager(vae, OBJECTIVES[objective], x)
    except (TypeError, ValueError, NotImplementedError):
        return False
    return True


COMBINATIONS = [(o, f) for o, f in itertools.product(OBJECTIVES, FAMILIES) if meaningful(o, f)]


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize(("objective", "family"), COMBINATIONS)
def test_traced_graph_equals_eager(traced_only, likelihood, objective, family):
    vae, x = pair(likelihood, family)
    agree(vae, OBJECTIVES[objective], x)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_compiled_likelihood_equals_eager(same_draws, likelihood):
    vae, x = pair(likelihood, dtype=torch.float32)
    agree(vae, OBJECTIVES["elbo"], x)


@pytest.mark.parametrize("family", FAMILIES)
def test_compiled_guide_equals_eager(same_draws, family):
    vae, x = pair(family=family)
    agree(vae, OBJECTIVES["elbo"], x)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_compiled_objective_equals_eager(same_draws, objective):
    vae, x = pair()
    agree(vae, OBJECTIVES[objective], x)


@pytest.mark.parametrize("prior", PRIORS)
def test_traced_prior_equals_eager(traced_only, prior):
    vae, x = pair(prior=prior)
    agree(vae, OBJECTIVES["elbo"], x)


def conv():
    return VAE(
        StandardNormal(2),
        Bernoulli(conv_decoder(2, (1, 8, 8))),
        DiagonalNormal(conv_encoder((1, 8, 8), 4)),
    )


def residual():
    return VAE(
        StandardNormal(2),
        Bernoulli(residual_decoder(2, (1, 28, 28))),
        DiagonalNormal(residual_encoder((1, 28, 28), 4)),
    )


def bfloat16():
    return VAE(
        StandardNormal(2),
        Bernoulli(BFloat16(mlp(2, 16, 64))),
        DiagonalNormal(BFloat16(mlp(64, 16, 4))),
    )


def dense():
    return VAE(StandardNormal(2), Bernoulli(mlp(2, 16, 64)), DiagonalNormal(mlp(64, 16, 4)))


NETWORKS = {
    "mlp": (dense, 64),
    "conv": (conv, 64),
    "residual with BatchNorm": (residual, 784),
    "bfloat16": (bfloat16, 64),
}
OPTIMISERS = {
    "adam": lambda ps: torch.optim.Adam(ps, lr=1e-2),
    "adamw": lambda ps: torch.optim.AdamW(ps, lr=1e-2, weight_decay=0.1),
    "amsgrad": lambda ps: torch.optim.Adam(ps, lr=1e-2, amsgrad=True, betas=(0.8, 0.99), eps=1e-4),
    "two groups": lambda ps: torch.optim.Adam(
        [{"params": ps[:3], "lr": 1e-3, "weight_decay": 0.1}, {"params": ps[3:]}], lr=1e-2
    ),
    "sgd": lambda ps: torch.optim.SGD(ps, lr=1e-4, momentum=0.9),
    "adagrad": lambda ps: torch.optim.Adagrad(ps, lr=1e-2),
}


def trained(make, size, optimiser, *, compile, steps=4, clip_norm=None, batches=(8,)):
    """Train for some steps; return the losses and the VAE's tensors."""
    torch.manual_seed(0)
    vae = make().train()
    data = (torch.rand(max(batches), size) < 0.3).float()
    svi = SVI(
        vae.model,
        vae.guide,
        optimiser(list(vae.parameters())),
        Trace_ELBO(beta=linear(3)),
        compile=compile,
        clip_norm=clip_norm,
    )
    torch.manual_seed(1)
    losses = [
        svi.step(data[:b]) for _, b in zip(range(steps), itertools.cycle(batches), strict=False)
    ]
    return torch.stack(losses), vae.state_dict(), svi


def assert_same_training(make, size, optimiser, rtol=1e-4, atol=1e-4, **options):
    a, b = (trained(make, size, optimiser, compile=compile, **options) for compile in (False, True))
    torch.testing.assert_close(b[0], a[0], rtol=rtol, atol=atol)
    torch.testing.assert_close(b[1], a[1], rtol=rtol, atol=atol)


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_compiled_training_equals_eager(same_draws, optimiser):
    assert_same_training(dense, 64, OPTIMISERS[optimiser])


@pytest.mark.parametrize("network", NETWORKS)
def test_compiled_networks_train_as_eager_ones(same_draws, network):
    make, size = NETWORKS[network]
    tolerance = (
        {"rtol": 0.05, "atol": 0.03} if network == "bfloat16" else {"rtol": 1e-3, "atol": 1e-3}
    )  # bf16 rounds at 0.4 %
    # not Adam: where BatchNorm makes a gradient zero but for rounding, its sign is Adam's whole step
    assert_same_training(make, size, OPTIMISERS["sgd"], steps=3, **tolerance)


def test_compiled_clip_equals_eager(same_draws):
    assert_same_training(dense, 64, OPTIMISERS["adam"], clip_norm=0.5)


def test_state_stays_in_the_optimiser(same_draws):
    """Two compiled steps, then two eager ones from the saved state, end where four eager ones do."""
    *_, svi = trained(dense, 64, OPTIMISERS["adam"], compile=True, steps=2)
    *_, reference = trained(dense, 64, OPTIMISERS["adam"], compile=False, steps=2)
    torch.testing.assert_close(
        svi.optim.state_dict(), reference.optim.state_dict(), rtol=1e-4, atol=1e-5
    )


def test_ragged_batches_cost_one_graph_each():
    *_, svi = trained(dense, 64, OPTIMISERS["adam"], compile=True, steps=6, batches=(8, 8, 5))
    assert len(svi.graph_step._graphs._graphs) == 2


def test_learning_rate_may_start_at_zero():
    """A pixel that is never lit has no gradient; zero times the update it would get is zero."""
    vae = dense()
    before = {name: p.clone() for name, p in vae.state_dict().items()}
    svi = SVI(
        vae.model, vae.guide, torch.optim.Adam(vae.parameters(), lr=0.0), Trace_ELBO(), compile=True
    )
    svi.step(torch.zeros(8, 64))
    torch.testing.assert_close(dict(vae.state_dict()), before, rtol=0, atol=0)


def test_annealing_and_learning_rates_compile_nothing_anew():
    *_, svi = trained(dense, 64, OPTIMISERS["adam"], compile=True, steps=3)
    for lr in (1e-3, 1e-4):
        svi.optim.param_groups[0]["lr"] = lr
        svi.step(torch.zeros(8, 64))
    assert len(svi.graph_step._graphs._graphs) == 1


def test_a_module_put_in_eval_mode_is_another_graph(traced_only):
    vae = VAE(
        StandardNormal(2),
        Bernoulli(mlp(2, 64)),
        DiagonalNormal(nn.Sequential(nn.Linear(64, 4), nn.BatchNorm1d(4))),
    ).train()
    svi = SVI(vae.model, vae.guide, torch.optim.Adam(vae.parameters()), Trace_ELBO(), compile=True)
    norm = vae.encoder.net[1]
    seen = []
    for mode in (True, False, True):
        norm.train(mode)
        svi.step(torch.eye(64)[:8])
        seen.append(int(norm.num_batches_tracked))
    assert seen == [1, 1, 2]
    assert len(svi.graph_step._graphs._graphs) == 2


def test_many_shapes_run_eagerly_beyond_the_limit(traced_only):
    losses, _, svi = trained(
        dense, 64, OPTIMISERS["adam"], compile=True, steps=7, batches=range(1, 8)
    )
    assert len(svi.graph_step._graphs._graphs) == compiled.MAX_GRAPHS
    assert losses.isfinite().all()


def test_own_random_numbers_agree_in_the_mean():
    """Losses of one model under eager and compiled noise: equal within 3 standard errors of the difference."""
    vae, x = pair()
    vae.requires_grad_(True)
    losses = {}
    for mode in (False, True):
        svi = SVI(
            vae.model,
            vae.guide,
            torch.optim.Adam(vae.parameters(), lr=0.0),
            Trace_ELBO(),
            compile=mode,
        )
        torch.manual_seed(7)
        losses[mode] = torch.stack([svi.step(x) for _ in range(2000)]).double()
    error = (sum(v.var() / len(v) for v in losses.values())) ** 0.5
    assert abs(float(losses[True].mean() - losses[False].mean())) < 3 * error
    assert losses[True].std() > 0.1
    assert len(losses[True].unique()) > 1900  # new noise at every step


def test_seed_decides_compiled_draws():
    first, second = (trained(dense, 64, OPTIMISERS["adam"], compile=True)[0] for _ in range(2))
    assert torch.equal(first, second)


def test_compiled_evaluation_equals_eager(same_draws):
    for make, size in NETWORKS.values():
        torch.manual_seed(0)
        vae = make()
        x = (torch.rand(7, size) < 0.3).float()
        values = []
        for mode in (False, True):
            torch.manual_seed(2)
            values.append(
                log_likelihood(vae.model, vae.guide, x, num_samples=20, chunk_size=60, compile=mode)
            )
        tolerance = 0.1 if make is bfloat16 else 1e-3
        torch.testing.assert_close(values[1], values[0], rtol=1e-5, atol=tolerance)


def test_global_state_is_left_alone():
    before = (
        torch.distributions.Distribution._validate_args,
        pyro.settings.get("validate_infer"),
        torch.is_grad_enabled(),
    )
    assert len(pyro.get_param_store()) == 0
    trained(dense, 64, OPTIMISERS["adam"], compile=True, steps=1)
    after = (
        torch.distributions.Distribution._validate_args,
        pyro.settings.get("validate_infer"),
        torch.is_grad_enabled(),
    )
    assert after == before
    assert len(pyro.get_param_store()) == 0


def test_functions_are_refused_in_one_sentence():
    vae = dense()
    with pytest.raises(CannotCompile, match="expected model and guide to be methods of modules"):
        SVI(
            lambda x: vae.model(x),
            lambda x: vae.guide(x),
            torch.optim.Adam(vae.parameters()),
            Trace_ELBO(),
            compile=True,
        )


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
    with pytest.raises(
        CannotCompile, match=r"\(No working C\+\+ compiler found\): use the eager path"
    ):
        trained(dense, 64, OPTIMISERS["adam"], compile=True, steps=1)


@pytest.mark.parametrize("version", ["2.13.0+cu130", "2.14.1"])
def test_repeating_random_numbers_are_refused_in_one_sentence(monkeypatch, version):
    monkeypatch.setattr(torch, "__version__", version)
    monkeypatch.setattr(torch._inductor, "compile", lambda graph, inputs: graph)
    with FakeTensorMode():  # a tensor on CUDA where there is none
        x = torch.empty(3, device="cuda")
    with pytest.raises(
        CannotCompile, match=r"expected torch before 2\.13, or .*, got 2\.1.*: use the eager"
    ):
        compile_graph(lambda x: [x + 1], [x])
    (y,) = compile_graph(lambda x: [x + 1], [torch.zeros(3)])(
        torch.zeros(3)
    )  # on the CPU they do not repeat
    assert torch.equal(y, torch.ones(3))


def test_structures_are_equal_where_arguments_nest_alike():
    first, same, other = (
        Structure(tree_flatten(tree)[1]) for tree in ({"x": [1, 2]}, {"x": [3, 4]}, {"x": (1, 2)})
    )
    assert first == same
    assert hash(first) == hash(same)
    assert first != other
    assert len({first, same, other}) == 2


def test_products_are_onednn_and_right():
    a, b, c = torch.randn(6, 5), torch.randn(5, 4), torch.randn(4)
    run = compile_graph(lambda a, b, c: [a @ b, torch.addmm(c, a, b), b.t() @ a.t()], [a, b, c])
    torch.testing.assert_close(run(a, b, c), [a @ b, a @ b + c, (a @ b).t()])


def test_shared_tensors_are_one_argument():
    class Pair(PyroModule):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(3, 3)
            self.b = nn.Linear(3, 3)
            self.b.weight = self.a.weight

        @pyro_method
        def model(self):
            return self.a(torch.ones(3)) + self.b(torch.ones(3))

    owner = Pair()
    modules = Modules(owner.model)
    tensors = modules.tensors()
    assert len(tensors) == 3
    doubled = {name: 2 * value for name, value in tensors.items()}
    with isolated(validate=False):
        torch.testing.assert_close(modules.run(doubled, owner.model), 2 * owner.model())


class FakeCuda:
    """What CudaGraph asks of CUDA, on the CPU: a recording is the function itself, called at replay."""

    def __init__(self, monkeypatch):
        self.recording = None
        recorder = self

        class Stream:
            def wait_stream(self, other):
                pass

        class Graph:
            def replay(self):
                for out, new in zip(recorder.outputs, recorder.again(), strict=True):
                    out.copy_(new)

        class Nothing:
            def __init__(self, *args):
                pass

            def __enter__(self):
                pass

            def __exit__(self, *args):
                pass

        for name, value in {
            "Stream": Stream,
            "CUDAGraph": Graph,
            "current_stream": Stream,
            "stream": Nothing,
            "graph": Nothing,
        }.items():
            monkeypatch.setattr(torch.cuda, name, value)


def test_cuda_graph_writes_once_a_call(monkeypatch):
    """Warm-up and recording must not count as steps, and new data must reach the recorded addresses."""
    fake = FakeCuda(monkeypatch)
    weight, total = torch.zeros(()), []

    def function(weight, x):
        weight += x
        return [weight * 10]

    graph = CudaGraph(function)
    original = graph._record

    def record(fixed, data):
        fake.outputs, fake.again = [torch.zeros(())], lambda: function(*fixed, *graph.data)
        original(fixed, data)
        graph.outputs = fake.outputs

    monkeypatch.setattr(graph, "_record", record)
    for x in (1.0, 2.0, 3.0):
        total += [float(out) for out in graph([weight], [torch.tensor(x)])]
    assert float(weight) == 6.0
    assert total[1:] == [30.0, 60.0]


def test_graphs_key_on_shape_and_type():
    graphs = Graphs()
    results = [
        graphs(lambda w, x: [w + x.sum()], [torch.ones(1)], [torch.ones(n, dtype=t)])
        for n in (2, 3)
        for t in (torch.float32, torch.int64)
    ]
    assert [float(r[0]) for r in results] == [3.0, 3.0, 4.0, 4.0]
    assert len(graphs._graphs) == 4
