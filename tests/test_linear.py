"""The products of ``Linear`` and of graphs: equal to torch's, by the library that is faster."""

import warnings
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.utils.parametrizations import spectral_norm
from torch.utils._python_dispatch import TorchDispatchMode

from pyro_vae.nets import BFloat16, Linear, linear, precision, products, products_by, timed
from pyro_vae.nets.graph_products import DECOMPOSITIONS
from pyro_vae.nets.precision import InFloat32
from pyro_vae.nets.products import Layout, applies
from pyro_vae.programs.compiler import compile_graph


@pytest.fixture
def no_choices(monkeypatch):
    """As in a process that has not timed a product yet."""
    monkeypatch.setattr(timed, "_choices", {})


@pytest.mark.parametrize("leading", [(128,), (2, 64)])
def test_large_products_are_those_of_torch(leading):
    """Values, gradients, and the gradients of a gradient, which semi-amortised inference needs."""
    torch.manual_seed(0)
    ours = Linear(300, 400)
    h = torch.randn(*leading, 300, requires_grad=True)
    weights = torch.randn(400)
    theirs = nn.Linear(300, 400)
    theirs.load_state_dict(ours.state_dict())
    results = []
    with products_by("onednn"):
        for layer in (ours, theirs):
            value = (layer(h).tanh() @ weights).sum()
            grads = torch.autograd.grad(value, [h, *layer.parameters()], create_graph=True)
            again = torch.autograd.grad(grads[0].square().sum(), [h, *layer.parameters()])
            functional = torch.func.grad(lambda h, layer=layer: (layer(h).tanh() @ weights).sum())(
                h
            )
            results.append([value, *grads, *again, functional])
        output = ours(h)  # torch 2.7 forgets the graph of a result that is gone
        before = str((output.grad_fn, output.grad_fn.next_functions))
    assert "ProductBackward" in before or not applies(h)
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-3)


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:FutureWarning")  # torch's own
@pytest.mark.parametrize("recorded", [True, False])
@pytest.mark.parametrize("transform", ["vmap", "jvp", "forward mode"])
def test_transforms_of_large_products(transform, recorded):
    torch.manual_seed(0)
    layer, x, tangent = Linear(300, 400), torch.randn(2, 128, 300), torch.randn(128, 300)
    with products_by("onednn"), torch.set_grad_enabled(recorded):
        if transform == "vmap":
            found, truth = torch.vmap(layer)(x), F.linear(x, layer.weight, layer.bias)
        elif transform == "jvp":
            found, truth = torch.func.jvp(layer, (x[0],), (tangent,))[1], tangent @ layer.weight.t()
        else:
            with forward_ad.dual_level():
                w = forward_ad.make_dual(layer.weight.detach(), 2 * layer.weight.detach())
                b = forward_ad.make_dual(layer.bias.detach(), layer.bias.detach())
                dual = linear.product(forward_ad.make_dual(x[0], tangent), w, b)
                found = forward_ad.unpack_dual(dual).tangent
            truth = F.linear(tangent, layer.weight) + F.linear(2 * x[0], layer.weight, layer.bias)
    torch.testing.assert_close(found, truth, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("way", ["torch", "onednn"])
@pytest.mark.parametrize("shape", [(128, 392), (2, 128, 392), (256, 392)])
def test_an_input_of_another_width_is_refused(way, shape):
    """Also where its numbers would fill rows of the layer."""
    with products_by(way), pytest.raises(RuntimeError, match="cannot be multiplied"):
        Linear(784, 400)(torch.zeros(shape))


def test_a_parametrised_weight_is_read_once():
    """Spectral normalisation takes a step at each reading."""
    torch.manual_seed(0)
    layers = [spectral_norm(kind(784, 400)) for kind in (Linear, nn.Linear)]
    layers[1].load_state_dict(layers[0].state_dict())
    with products_by("onednn"):
        torch.testing.assert_close(*(layer(torch.ones(128, 784)) for layer in layers))
    torch.testing.assert_close(*(list(layer.buffers()) for layer in layers))


@pytest.mark.parametrize("chosen", ["128x300 300x400'", "128x400 400x300", "400x128' 128x300"])
def test_each_product_of_a_layer_has_its_own_way(no_choices, monkeypatch, chosen):
    """The output, and the gradients of input and weight."""
    taken = []

    def onednn(a, b, bias):
        taken.append((a.shape, b.shape))
        return F.linear(a, b.t(), bias)

    monkeypatch.setattr(linear, "onednn", onednn)
    names = ["128x300 300x400'", "128x400 400x300", "400x128' 128x300"]
    end = f", {torch.get_num_threads()} threads"
    layer_name = f"layer 128x300 400x300 gradients of input of weight {end}"
    ways = {name + end: "onednn" if name == chosen else "torch" for name in names}
    timed.remember(ways | {layer_name: "onednn"})
    torch.manual_seed(0)
    layer, x = Linear(300, 400), torch.randn(128, 300, requires_grad=True)
    grads = torch.autograd.grad(layer(x).square().sum(), [x, *layer.parameters()])
    truth = F.linear(x, layer.weight, layer.bias)
    expected = torch.autograd.grad(truth.square().sum(), [x, *layer.parameters()])
    torch.testing.assert_close(grads, expected, rtol=1e-4, atol=1e-2)
    sizes = [tuple(map(int, part.strip("'").split("x"))) for part in chosen.split()]
    assert taken == ([tuple(map(torch.Size, sizes))] if applies(x) else [])


@pytest.mark.parametrize("frozen", ["input", "weight", "neither"])
def test_a_trained_layer_is_timed_with_its_gradients(no_choices, frozen):
    layer, x = Linear(300, 400), torch.randn(128, 300, requires_grad=frozen != "input")
    layer.weight.requires_grad_(frozen != "weight")
    layer(x).sum().backward()
    names = [name for name in timed.choices() if name.startswith("layer")]
    gradients = " ".join(f"of {name}" for name in ("input", "weight") if name != frozen)
    known = f"layer 128x300 400x300 gradients {gradients} , {torch.get_num_threads()} threads"
    assert names == ([known] if applies(x) else [])


class Weights(TorchDispatchMode):
    """The weights that oneDNN is called with."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.mkldnn._linear_pointwise.default:
            self.seen.append(args[1])
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("frozen", ["input", "weight", "neither"])
@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN")
def test_onednn_never_meets_a_weight_with_gaps_between_its_rows(frozen):
    """Of such a view it takes a thousand times as long: of the layer's, and of a chunked input."""
    torch.manual_seed(0)
    weight = torch.randn(400, 316, requires_grad=frozen != "weight")[:, :300]
    x = torch.randn(128, 600, requires_grad=frozen != "input").chunk(2, -1)[1]
    inputs = [v for v in (x, weight) if v.requires_grad]
    with products_by("onednn"), Weights() as weights:
        grads = torch.autograd.grad(linear.linear(x, weight).square().sum(), inputs)
    assert len(weights.seen) == 1 + len(inputs)
    assert all(w.is_contiguous() or w.t().is_contiguous() for w in weights.seen)
    expected = torch.autograd.grad(F.linear(x, weight).square().sum(), inputs)
    torch.testing.assert_close(grads, expected, rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("recorded", [True, False])
@pytest.mark.parametrize(
    "bias", [torch.linspace(-1, 1, 800)[::2], torch.full((1,), 0.5).expand(400)]
)
def test_a_bias_need_not_be_contiguous(bias, recorded):
    """oneDNN would read the memory behind its first element."""
    torch.manual_seed(0)
    x, weight = torch.randn(128, 300), torch.randn(400, 300, requires_grad=recorded)
    with products_by("onednn"):
        got = linear.linear(x, weight, bias)
    torch.testing.assert_close(got, F.linear(x, weight, bias), rtol=1e-4, atol=1e-3)


def matrices():
    torch.manual_seed(0)
    return torch.randn(128, 784), torch.randn(784, 400), torch.randn(400)


def expressions(a, b, c):
    return [a @ b, torch.addmm(c, a, b), b.t() @ a.t(), torch.addmm(c, a, b, beta=0.5)]


@pytest.mark.parametrize("library", ["torch", "onednn", "rows"])
def test_products_of_a_graph_are_those_of_torch(library):
    with products_by(library):
        run = compile_graph(expressions, matrices())
        graph = make_fx(expressions, DECOMPOSITIONS, tracing_mode="fake")(*matrices())
    torch.testing.assert_close(run(*matrices()), expressions(*matrices()), rtol=1e-4, atol=1e-3)
    ours = [node for node in graph.graph.nodes if node.target is torch.ops.pyro_vae.mm.default]
    assert len(ours) == (3 if library != "torch" and applies(matrices()[0]) else 0)


@pytest.mark.parametrize("way", ["torch", "float32"])
def test_layers_of_bfloat16_are_those_of_torch(monkeypatch, way):
    """Values and gradients of both ways agree to the rounding of bfloat16, 0.4 %."""
    taken, in_float32 = [], linear.in_float32
    monkeypatch.setattr(linear, "in_float32", lambda *x: taken.append(1) or in_float32(*x))
    torch.manual_seed(0)
    layer, x = Linear(784, 400), torch.randn(128, 784, requires_grad=True)
    exact = nn.Linear(784, 400)
    exact.load_state_dict(layer.state_dict())
    results = []
    with products_by(way):
        for net in (BFloat16(layer), exact):
            grads = torch.autograd.grad(net(x).square().sum(), [x, *net.parameters()])
            results.append([net(x), *grads])
    assert bool(taken) == (way == "float32" and applies(x, torch.bfloat16))
    for a, b in zip(*results, strict=True):
        assert (a - b).norm() < 0.01 * b.norm()


LAYERS = {
    "linear": (lambda: nn.Linear(8, 6), (4, 8)),
    "conv1d": (lambda: nn.Conv1d(2, 3, 3), (4, 2, 8)),
    "conv2d": (lambda: nn.Conv2d(2, 3, 3, stride=2), (4, 2, 8, 8)),
    "conv3d": (lambda: nn.Conv3d(2, 3, 3, bias=False), (4, 2, 5, 5, 5)),
    "transposed": (lambda: nn.ConvTranspose2d(2, 3, 3, stride=2, output_padding=1), (4, 2, 8, 8)),
    "product": (lambda: Product(), (4, 8)),
}


class Product(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(8, 6))

    def forward(self, input):
        return input @ self.weight


@pytest.mark.parametrize("name", LAYERS)
def test_layers_of_bfloat16_in_float32(name):
    """Values and gradients: those of the rounded numbers, each rounded to 1 of 256 at last."""
    torch.manual_seed(0)
    build, shape = LAYERS[name]
    layer, x = build(), torch.randn(shape, requires_grad=True)
    with torch.no_grad():
        for value in (x, *layer.parameters()):
            value.copy_(value.bfloat16())
    with torch.autocast("cpu", torch.bfloat16), InFloat32():
        y = layer(x)
    exact = layer(x)
    assert y.dtype == torch.bfloat16
    assert torch.equal(y, exact.bfloat16())
    inputs, grad = [x, *layer.parameters()], torch.ones_like(y)
    grads = torch.autograd.grad(y, inputs, grad)
    for a, b in zip(grads, torch.autograd.grad(exact, inputs, grad.float()), strict=True):
        torch.testing.assert_close(a, b, rtol=2**-8, atol=0)


@pytest.mark.parametrize("kernels", [True, False])
def test_networks_of_bfloat16_with_and_without_kernels(monkeypatch, kernels):
    monkeypatch.setattr(precision, "has_kernels", lambda device: kernels)
    torch.manual_seed(0)
    net, x = (
        nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(144, 5)),
        torch.rand(3, 1, 8, 8),
    )
    torch.testing.assert_close(BFloat16(net)(x), net(x), rtol=0.02, atol=0.02)
    assert BFloat16(net.double())(x.double()).dtype == torch.float32
    assert net(x.double()).dtype == torch.float64


def test_layers_with_an_output_of_their_own_or_another_type_are_left_alone():
    x, low = torch.ones(4, 8), torch.float16
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16), InFloat32():
        out = torch.zeros(4, 4, dtype=torch.bfloat16)
        torch.matmul(x.bfloat16(), x.bfloat16().t(), out=out)
        assert (out == 8).all()
        with torch.autocast("cpu", low):
            assert (x @ x.t()).dtype == low


@pytest.mark.parametrize("kernels", [True, False])
def test_networks_of_bfloat16_can_be_traced(monkeypatch, kernels):
    """As Pyro's JitTrace_ELBO does."""
    monkeypatch.setattr(precision, "KERNELS", kernels)
    net, x = BFloat16(nn.Linear(8, 3)), torch.rand(4, 8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        traced = torch.jit.trace(net, (x,))
    assert torch.equal(traced(x), net(x))


def test_small_products_of_bfloat16_have_a_choice(no_choices):
    """Without instructions for them they take 20 times as long as those of float32."""
    layer, x = Linear(20, 400), torch.randn(128, 20)
    layer(x)
    assert not timed.choices()
    with torch.autocast("cpu", torch.bfloat16):
        layer(x)
    assert len(timed.choices()) == applies(x, torch.bfloat16)


@pytest.mark.parametrize(
    ("sizes", "timed"),
    [
        ((128, 784, 400), (128, 784, 400)),
        ((50_000, 784, 400), (2048, 784, 400)),
        ((784, 50_000, 400), (784, 2048, 400)),
        ((50, 400, 22_050), (50, 400, 22_050)),  # a wide layer, whose matrix exceeds the caches
        ((128, 400, 22_050), (128, 400, (1 << 29) // (128 * 400))),
        ((0, 784, 400), (0, 784, 400)),
        ((1 << 15, 1 << 15, 1 << 15), (2048, 2048, 2048)),
    ],
)
def test_of_a_large_product_a_part_is_timed(sizes, timed):
    rows, inner, columns = sizes
    a, b = products.limited(Layout(rows, inner, True), Layout(inner, columns))
    assert (a.rows, a.columns, b.columns) == timed
    assert b.rows == a.columns
    assert products.limited(a, b) == (a, b)
    assert (a.transposed, b.transposed) == (True, False)


@pytest.mark.parametrize("way", ["torch", "float32"])
def test_types_that_autocast_leaves_alone_or_torch_refuses(way):
    with products_by(way), torch.autocast("cpu", torch.bfloat16):
        double = Linear(784, 400).double()
        assert double(torch.zeros(128, 784).double()).dtype == torch.float64
    with products_by(way), pytest.raises(RuntimeError, match="same dtype"):
        Linear(784, 400)(torch.zeros(128, 784).bfloat16())


def test_traced_sizes_are_not_looked_at():
    """Symbolic sizes, also those that depend on data, would be fixed by a comparison."""
    layer = Linear(784, 400)

    def chosen_rows(x, mask):
        return layer(x[mask])

    x, mask = torch.randn(128, 784), torch.arange(128) < 90
    graph = make_fx(chosen_rows, tracing_mode="symbolic", _allow_non_fake_inputs=True)(x, mask)
    torch.testing.assert_close(graph(x, ~mask), layer(x[~mask]))


@pytest.mark.parametrize("way", ["torch", "float32"])
def test_products_of_bfloat16_in_a_graph(way):
    a, b, c = (x.bfloat16() for x in matrices())
    with products_by(way):
        graph = make_fx(expressions, DECOMPOSITIONS, tracing_mode="fake")(a, b, c)
        run = compile_graph(expressions, (a, b, c))
    exact = expressions(a.float(), b.float(), c.float())
    for result in (graph(a, b, c), run(a, b, c)):
        for value, expected in zip(result, exact, strict=True):
            assert value.dtype == torch.bfloat16
            assert (value.float() - expected).norm() < 0.0018 * expected.norm()  # rounded once
    products_ = [n for n in graph.graph.nodes if n.target is torch.ops.aten.mm.default]
    in_float32 = [n for n in products_ if n.meta["val"].dtype == torch.float32]
    assert len(in_float32) == (3 if way == "float32" and applies(a) else 0)


@pytest.mark.parametrize(("rounds", "least"), [(3, 0.0), (1, 22.0)])
def test_calls_are_timed_in_turn(monkeypatch, rounds, least):
    """The least time of each, without its first call; as many rounds as take the seconds."""
    clock, order = [0.0], []
    seconds = {"torch": iter([1.0, 5.0, 4.0, 6.0]), "onednn": iter([1.0, 3.0, 7.0, 2.0])}

    def call(library):
        order.append(library)
        clock[0] += next(seconds[library])

    monkeypatch.setattr(timed.time, "perf_counter", lambda: clock[0])
    calls = {library: partial(call, library) for library in seconds}
    assert timed._seconds(calls, rounds, least) == {"torch": 4.0, "onednn": 2.0}
    assert order == 4 * ["torch", "onednn"]


@pytest.mark.parametrize("faster", ["torch", "onednn"])
def test_the_faster_library_is_chosen_once(monkeypatch, no_choices, faster):
    """Calls are timed once for a name; the random numbers of the caller stay as they are."""
    timings = []

    def seconds(calls):
        timings.extend(call() for call in calls.values())
        return {library: 1.0 if library == faster else 2.0 for library in calls}

    monkeypatch.setattr(timed, "_seconds", seconds)
    calls = {"torch": lambda: "torch", "onednn": lambda: "onednn"}
    assert [timed.chosen("a", lambda: calls) for _ in range(3)] == [faster] * 3
    assert timings == ["torch", "onednn"]
    with products_by("torch"):
        assert timed.chosen("a", lambda: calls) == "torch"
    monkeypatch.setattr(timed, "_choices", {})
    timed.remember({"a": "onednn"})
    assert timed.chosen("a", lambda: calls) == "onednn"


def test_a_choice_draws_no_random_numbers(no_choices):
    layer, x = Linear(784, 400), matrices()[0]
    before = torch.get_rng_state()
    with torch.no_grad():
        layer(x)
    layer(x).square().sum().backward()
    make_fx(expressions, DECOMPOSITIONS, tracing_mode="fake")(*matrices())
    assert torch.equal(torch.get_rng_state(), before)
    if applies(x):
        names = {key.split(",")[0] for key in timed.choices()}
        assert names == {
            *("128x784 784x400'", "400x128' 128x784", "layer 128x784 400x784 gradients of weight "),
            *("graph 128x784 784x400", "graph 400x784' 784x128'"),
        }


def test_small_products_and_other_types_are_torchs(no_choices):
    layer = Linear(784, 400)
    layer(torch.zeros(2, 784))
    layer.double()(torch.zeros(128, 784).double())
    assert not timed.choices()


def test_an_unknown_library_is_refused():
    with pytest.raises(ValueError, match=r"expected one of .*'float32'.*, got 'mkl'"):
        products_by("mkl").__enter__()
