"""``log_sigmoid`` and its relatives in graphs are torch's functions, in value and gradients."""

import pytest
import torch
import torch.nn.functional as F
from torch.fx.experimental.proxy_tensor import make_fx

from pyro_vae.families import BernoulliDistribution
from pyro_vae.families.bernoulli import Pixels
from pyro_vae.nets.log_sigmoid import DECOMPOSITIONS, log1p, log_sigmoid
from pyro_vae.programs.compiler import REPLACED, compile_graph

X = torch.cat([torch.linspace(-120, 120, 4001), torch.tensor([0.0, -0.0, 1e-30, 1e4, -1e4])])


def test_the_series_is_exact_to_rounding():
    e = torch.linspace(0, 1, 10001)
    exact = e.double().log1p()
    relative = (log1p(e).double() - exact).abs() / exact.clamp(min=1e-300)
    assert relative.max() < 4 * torch.finfo(torch.float32).eps


@pytest.mark.parametrize("grad", [False, True])
def test_the_value_is_that_of_float64(grad):
    exact = F.logsigmoid(X.double()).float()
    with torch.set_grad_enabled(grad):
        torch.testing.assert_close(log_sigmoid(X), exact, rtol=1e-5, atol=1e-20)
    torch.testing.assert_close(log_sigmoid(X.double()), F.logsigmoid(X.double()))


def test_infinities_and_nan_pass():
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
def test_gradients_are_those_of_torch(name):
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
def test_derivatives_in_forward_mode_are_those_of_torch(name, grad):
    ours, theirs = FUNCTIONS[name]
    results = []
    for function, x in ((ours, X.clone()), (theirs, X.double())):
        with torch.set_grad_enabled(grad):
            _, tangent = torch.func.jvp(function, (x,), (torch.linspace(0.1, 1, len(X)).to(x),))
        results.append(tangent.float())
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-6)


def test_data_have_a_gradient_too():
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
