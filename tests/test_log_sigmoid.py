"""``log_sigmoid`` and its relatives are torch's functions, in value and gradients, in each way."""

import pytest
import torch
import torch.nn.functional as F
from torch.fx.experimental.proxy_tensor import make_fx

from pyro_vae.families import BernoulliDistribution, bernoulli
from pyro_vae.families.bernoulli import LogProb, LogProbOfVectors, Pixels
from pyro_vae.nets import log_sigmoid as file
from pyro_vae.nets import products_by, timed
from pyro_vae.nets.log_sigmoid import DECOMPOSITIONS, LogSigmoid, log1p, log_sigmoid
from pyro_vae.programs.compiler import REPLACED, compile_graph

X = torch.cat([torch.linspace(-120, 120, 4001), torch.tensor([0.0, -0.0, 1e-30, 1e4, -1e4])])


def test_the_series_is_exact_to_rounding():
    e = torch.linspace(0, 1, 10001)
    exact = e.double().log1p()
    relative = (log1p(e).double() - exact).abs() / exact.clamp(min=1e-300)
    assert relative.max() < 4 * torch.finfo(torch.float32).eps


@pytest.fixture(params=["torch", "series", "grouped"])
def way(request, monkeypatch):
    """One way for all numbers, however few."""
    monkeypatch.setattr(file, "FEW", 0)
    monkeypatch.setattr(bernoulli, "FEW", 0)
    with products_by(request.param):
        yield request.param


@pytest.mark.parametrize("grad", [False, True])
def test_the_value_is_that_of_float64(grad, way):
    exact = F.logsigmoid(X.double()).float()
    with torch.set_grad_enabled(grad):
        torch.testing.assert_close(log_sigmoid(X), exact, rtol=1e-5, atol=1e-20)
    torch.testing.assert_close(log_sigmoid(X.double()), F.logsigmoid(X.double()))


def test_infinities_and_nan_pass(way):
    x = torch.tensor([-torch.inf, torch.inf, torch.nan])
    torch.testing.assert_close(log_sigmoid(x), F.logsigmoid(x), equal_nan=True)


def pixels(logits):
    return BernoulliDistribution(logits=logits, validate_args=False)


def vectors(logits):
    return Pixels(pixels(logits), 1, validate_args=False)


VECTORS = torch.arange(6.0).remainder(3).div(2).expand(len(X), 6)

FUNCTIONS = {
    "log_sigmoid": (log_sigmoid, F.logsigmoid),
    "log p(x) of vectors": (
        lambda x: vectors(x[:, None].tile(6)).log_prob(VECTORS),
        lambda x: VECTORS.to(x).sum(-1) * x - 6 * F.softplus(x),
    ),
    "log p(x)": (
        lambda x: pixels(x).log_prob(X / 240 + 0.5),
        lambda x: -F.binary_cross_entropy_with_logits(x, X.to(x) / 240 + 0.5, reduction="none"),
    ),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_gradients_are_those_of_torch(name, way):
    """First and second derivatives, those of ``torch.func``, and a batch of them by ``vmap``."""
    ours, theirs = FUNCTIONS[name]
    results = []
    for function, x in ((ours, X.clone()), (theirs, X.double())):
        x.requires_grad_()
        weights = torch.linspace(0, 1, len(X)).to(x)
        (first,) = torch.autograd.grad((function(x) * weights).sum(), [x], create_graph=True)
        (second,) = torch.autograd.grad(first.sum(), [x])
        functional = torch.func.grad(lambda x, f=function: f(x).sum())(x.detach())
        two = torch.stack([x.detach(), 0.5 * x.detach()])
        batch = torch.func.vmap(torch.func.grad(lambda x, f=function: f(x).sum()))(two)
        results.append([value.float() for value in (first, second, functional, batch)])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:FutureWarning")  # torch's own
@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_derivatives_in_forward_mode_are_those_of_torch(name, grad, way):
    ours, theirs = FUNCTIONS[name]
    results = []
    for function, x in ((ours, X.clone()), (theirs, X.double())):
        with torch.set_grad_enabled(grad):
            _, tangent = torch.func.jvp(function, (x,), (torch.linspace(0.1, 1, len(X)).to(x),))
        results.append(tangent.float())
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-6)


def test_data_have_a_gradient_too(way):
    logits = torch.randn(3, 5)
    for q in (pixels(logits), vectors(logits)):
        x = torch.rand(3, 5, requires_grad=True)
        q.log_prob(x).sum().backward()
        torch.testing.assert_close(x.grad, logits)


def test_torchs_own_functions_are_replaced_in_a_graph():
    """Their values and gradients are the same, and none of them is left for the compiler."""

    def function(x, target):
        with torch.enable_grad():
            y = x.detach().requires_grad_()
            entropy = F.binary_cross_entropy_with_logits(y, target, reduction="none")
            values = [F.softplus(y), F.logsigmoid(y), entropy]
            (grad,) = torch.autograd.grad(sum(value.sum() for value in values), [y])
        return [*(value.detach() for value in values), grad]

    x, target = X[:-2], X[:-2] / 240 + 0.5
    compiled = compile_graph(function, [x, target])(x, target)
    exact = function(x.double(), target.double())
    for a, b in zip(compiled, exact, strict=True):
        torch.testing.assert_close(a, b.float(), rtol=1e-5, atol=1e-5)
    graph = make_fx(function, REPLACED, tracing_mode="fake")(x, target).graph
    assert not {node.target for node in graph.nodes} & set(DECOMPOSITIONS)


CALLS = {
    "mean": lambda x, t: F.binary_cross_entropy_with_logits(x, t),
    "sum": lambda x, t: F.binary_cross_entropy_with_logits(x, t, reduction="sum"),
    "weight": lambda x, t: F.binary_cross_entropy_with_logits(x, t, t, reduction="none"),
    "pos_weight": lambda x, t: F.binary_cross_entropy_with_logits(x, t, pos_weight=t),
    "threshold": lambda x, t: F.softplus(x, 1, 1.0),
    "beta": lambda x, t: F.softplus(x, 2.0),
    "float64": lambda x, t: F.logsigmoid(x.double()),
}
"""Calls of the functions that a graph replaces, with other arguments."""


@pytest.mark.parametrize("name", CALLS)
def test_other_arguments_are_heard_in_a_graph(name):
    x, target = torch.linspace(-5, 5, 11), torch.linspace(0, 1, 11)
    graph = make_fx(CALLS[name], REPLACED, tracing_mode="fake")(x, target)
    torch.testing.assert_close(graph(x, target), CALLS[name](x, target))


OURS = {
    "log_sigmoid": (LogSigmoid, "series"),
    "log p(x) of vectors": (LogProbOfVectors, "grouped"),
    "log p(x)": (LogProb, "series"),
}
"""The function with a gradient of its own, and the way that takes it."""


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_way_that_is_asked_for_is_taken(name, way):
    function, _ = FUNCTIONS[name]
    ours, its_way = OURS[name]
    output = function(X.clone().requires_grad_())
    seen, rest = set(), [output.grad_fn]
    while rest:
        node = rest.pop()
        seen.add(node.name())
        rest += [following for following, _ in node.next_functions if following is not None]
    assert (f"{ours.__name__}Backward" in seen) == (way == its_way)


OF_NUMBERS = {
    "log_sigmoid": log_sigmoid,
    "log p(x) of vectors": lambda x: vectors(x.view(-1, 10)).log_prob(torch.ones(len(x) // 10, 10)),
    "log p(x)": lambda x: pixels(x).log_prob(torch.ones(len(x))),
}


@pytest.mark.parametrize("faster", ["torch", "ours"])
@pytest.mark.parametrize("name", OF_NUMBERS)
def test_the_faster_way_is_chosen_once(name, faster, monkeypatch):
    """It is the same for about as many numbers; few numbers are not timed."""
    _, its_way = OURS[name]
    timings = []

    def seconds(ways):
        timings.append([way() for way in ways.values()])
        return {"torch": 1.0, its_way: 2.0 if faster == "torch" else 0.5}

    monkeypatch.setattr(timed, "_seconds", seconds)
    monkeypatch.setattr(timed, "_choices", {})
    for numbers in (5500, 5600, 100):
        OF_NUMBERS[name](torch.linspace(-3, 3, numbers, requires_grad=True))
    assert list(timed.choices().values()) == ["torch" if faster == "torch" else its_way]
    assert len(timings) == 1


@pytest.mark.parametrize("name", OF_NUMBERS)
def test_nothing_is_timed_where_operations_are_traced(name, monkeypatch):
    """A graph has the series, and takes as long as its compiler makes it."""
    monkeypatch.setattr(timed, "_choices", {})
    x = torch.linspace(-3, 3, 5500)

    def loss(x):
        return OF_NUMBERS[name](x).sum()

    def gradient(x):
        y = x.detach().requires_grad_()
        return torch.autograd.grad(loss(y), [y])[0]

    compiled = x.clone().requires_grad_()
    torch.compile(loss, backend="eager", fullgraph=True)(compiled).backward()
    graph = make_fx(gradient, tracing_mode="fake")(x)
    for result in (graph(x), compiled.grad):
        torch.testing.assert_close(result, torch.sigmoid(-x))  # that of log p(1) too
    assert not timed.choices()


def test_the_replacements_of_a_graph_are_no_functions_that_it_replaces(way):
    """Also where tensors have values while they are traced."""
    x = torch.linspace(-5, 5, 11)
    for function in (F.softplus, F.logsigmoid):
        graph = make_fx(function, DECOMPOSITIONS, tracing_mode="real")(x)
        torch.testing.assert_close(graph(x), function(x))


@pytest.fixture(params=OF_NUMBERS)
def untimed(request, monkeypatch):
    """A function of numbers, as in a process that has not timed it yet."""
    monkeypatch.setattr(timed, "_choices", {})
    return OF_NUMBERS[request.param]


@pytest.mark.filterwarnings("ignore:.torch.jit.trace. is deprecated")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_torch_jit_trace_records_no_timing(untimed):
    x = torch.linspace(-3, 3, 5500)
    traced = torch.jit.trace(lambda x: untimed(x), x, check_trace=False)
    torch.testing.assert_close(traced(x), untimed(x))
    assert len(str(traced.graph).splitlines()) < 80


def test_the_hooks_of_a_caller_do_not_see_the_timing(untimed):
    """Activation checkpointing counts the tensors that are saved."""
    x = torch.linspace(-3, 3, 5500, requires_grad=True)
    torch.utils.checkpoint.checkpoint(untimed, x, use_reentrant=False).sum().backward()
    torch.testing.assert_close(x.grad, torch.sigmoid(-x.detach()))


def test_inference_mode_does_not_reach_the_timing(untimed):
    x = torch.linspace(-3, 3, 5500)
    with torch.inference_mode(), torch.enable_grad():
        result = untimed(x)
    torch.testing.assert_close(result, untimed(x))
