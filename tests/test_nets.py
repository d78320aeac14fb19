"""Networks: properties that hold for every one of them, on every size of image."""

import io
import math

import pytest
import torch
from torch import nn
from torch.func import functional_call

from pyro_vae.nets.conv import conv_decoder, conv_encoder
from pyro_vae.nets.dense import Flat, mlp, set_output_bias
from pyro_vae.nets.residual import residual_decoder, residual_encoder

IMAGES = {"mnist": (1, 28, 28), "digits": (1, 8, 8), "cifar": (3, 32, 32), "odd": (2, 9, 14)}

NETS = {  # name: image shape -> (network, its inputs, its outputs)
    "mlp": lambda shape: (mlp(math.prod(shape), 16, 12, 6), math.prod(shape), 6),
    "tanh mlp": lambda shape: (
        mlp(3, 16, math.prod(shape), activation=nn.Tanh),
        3,
        math.prod(shape),
    ),
    "linear": lambda shape: (mlp(math.prod(shape), 6), math.prod(shape), 6),
    "conv_encoder": lambda shape: (conv_encoder(shape, 6), math.prod(shape), 6),
    "conv_decoder": lambda shape: (conv_decoder(3, shape), 3, math.prod(shape)),
    "wide conv_decoder": lambda shape: (
        conv_decoder(3, shape, outputs=2 * math.prod(shape)),
        3,
        2 * math.prod(shape),
    ),
    "residual_encoder": lambda shape: (residual_encoder(shape, 6), math.prod(shape), 6),
    "residual_decoder": lambda shape: (residual_decoder(3, shape), 3, math.prod(shape)),
    "wide residual_decoder": lambda shape: (
        residual_decoder(3, shape, outputs=2 * math.prod(shape)),
        3,
        2 * math.prod(shape),
    ),
}

all_nets = pytest.mark.parametrize("name", NETS)
# a multilayer perceptron sees no image, only a size
on_images = pytest.mark.parametrize(
    ("name", "shape"),
    [
        pytest.param(name, shape, id=f"{name}-{size}")
        for name in NETS
        for size, shape in IMAGES.items()
        if "coder" in name or size == "digits"
    ],
)


def make(name, shape=IMAGES["digits"], seed=0):
    """A network whose running statistics, if any, are not the initial ones."""
    torch.manual_seed(seed)
    net, size_in, size_out = NETS[name](shape)
    net.train()(torch.rand(16, size_in))
    return net.eval(), size_in, size_out


def copies(net):
    tensors = [*net.named_parameters(), *net.named_buffers()]
    return {name: value.detach().clone() for name, value in tensors}


@on_images
def test_leading_dimensions(name, shape):
    net, size_in, size_out = make(name, shape)
    x = torch.rand(2, 3, size_in)
    rows = torch.stack([torch.stack([net(row) for row in block]) for block in x])
    assert rows.shape == (2, 3, size_out)
    for lead in [(2, 3), (6,), (1, 3, 1, 2)]:
        out = net(x.reshape(*lead, size_in))
        assert out.shape == (*lead, size_out)
        torch.testing.assert_close(out.reshape(2, 3, size_out), rows)
    for lead in [(0,), (0, 2), (2, 0)]:
        assert net(torch.rand(*lead, size_in)).shape == (*lead, size_out)


@all_nets
def test_particles_train_like_a_batch(name):
    flat, size_in, size_out = make(name)
    stacked, *_ = make(name)
    x = torch.rand(2, 3, size_in)
    out = stacked.train()(x)
    torch.testing.assert_close(out, flat.train()(x.flatten(0, 1)).reshape(2, 3, size_out))
    torch.testing.assert_close(stacked.state_dict(), flat.state_dict())


@all_nets
def test_gradient_reaches_every_parameter(name):
    net, size_in, _ = make(name)
    x = torch.rand(16, size_in, requires_grad=True)
    net.train()(x).square().sum().backward()
    for key, value in [("input", x), *net.named_parameters()]:
        assert value.grad is not None, key
        assert value.grad.isfinite().all(), key
        assert value.grad.abs().sum() > 0, key


@all_nets
def test_state_dict_round_trip(name):
    net, size_in, _ = make(name)
    other, *_ = make(name, seed=1)
    x = torch.rand(4, size_in)
    assert not torch.allclose(other(x), net(x))
    file = io.BytesIO()
    torch.save(net.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    torch.testing.assert_close(other(x), net(x), atol=0, rtol=0)


@all_nets
def test_functional_call(name):
    net, size_in, _ = make(name)
    other, *_ = make(name, seed=1)
    x = torch.rand(2, 3, size_in)
    state, before = copies(other), copies(net)
    torch.testing.assert_close(functional_call(net.train(), state, x), other.train()(x))
    # running statistics change in the state that was passed, and nowhere else
    torch.testing.assert_close(state, copies(other))
    torch.testing.assert_close(copies(net), before)


@all_nets
def test_compiles_as_one_graph(name):
    torch.compiler.reset()  # its limit of recompilations counts all networks together
    net, size_in, _ = make(name)
    compiled = torch.compile(net, fullgraph=True, backend="eager")
    for lead in [(4,), (2, 3)]:
        x = torch.rand(*lead, size_in)
        torch.testing.assert_close(compiled(x), net(x))


@all_nets
def test_wrong_input_size(name):
    net, size_in, _ = make(name)
    with pytest.raises(
        ValueError, match=rf"expected input \(\.\.\., {size_in}\), got \(128, {size_in + 1}\)"
    ):
        net(torch.rand(128, size_in + 1))


@pytest.mark.parametrize(
    ("build", "message"),
    {
        "one size": (lambda: mlp(784), r"expected at least two positive sizes, got \(784,\)"),
        "no units": (
            lambda: mlp(784, 0, 2),
            r"expected at least two positive sizes, got \(784, 0, 2\)",
        ),
        "small for conv_encoder": (
            lambda: conv_encoder((1, 3, 28), 2),
            r"at least 4 x 4 pixels, got \(1, 3, 28\)",
        ),
        "small for conv_decoder": (
            lambda: conv_decoder(2, (1, 28, 3)),
            r"at least 4 x 4 pixels, got \(1, 28, 3\)",
        ),
        "small for residual_encoder": (
            lambda: residual_encoder((1, 7, 7), 2),
            r"at least 8 x 8 pixels, got \(1, 7, 7\)",
        ),
        "small for residual_decoder": (
            lambda: residual_decoder(2, (1, 7, 7)),
            r"at least 8 x 8 pixels, got \(1, 7, 7\)",
        ),
        "no channels": (
            lambda: conv_encoder((28, 28), 2),
            r"expected an image shape \(C, H, W\).*got \(28, 28\)",
        ),
        "outputs": (
            lambda: conv_decoder(2, (1, 8, 8), outputs=65),
            "expected outputs in multiples of 8 x 8, got 65",
        ),
    }.values(),
)
def test_bad_sizes(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_flat_agrees_with_the_layers_on_images():
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 4, 3)
    images = torch.rand(5, 3, 8, 6)
    out = Flat(conv, shape=(3, 8, 6))(images.flatten(1))
    torch.testing.assert_close(out, conv(images).flatten(1))


def test_convolutional_pair_has_the_published_number_of_parameters():
    """69,076 and 65,089, as Chollet, *Variational AutoEncoder* (Keras, 2020) prints for z = 2."""
    encoder, decoder = conv_encoder((1, 28, 28), outputs=4), conv_decoder(2, (1, 28, 28))
    assert sum(p.numel() for p in encoder.parameters()) == 69_076
    assert sum(p.numel() for p in decoder.parameters()) == 65_089


def test_residual_pair_has_the_stated_widths():
    def widths(net):
        return [m.num_features for m in net.modules() if isinstance(m, nn.BatchNorm2d)]

    assert widths(residual_encoder((1, 28, 28), 4)) == [4, 8, 16, 32]
    assert list(dict.fromkeys(widths(residual_decoder(2, (1, 28, 28))))) == [8, 32, 16]
    assert residual_decoder(2, (1, 28, 28))[0].out_features == 8 * 7 * 7


@pytest.mark.parametrize("name", ["tanh mlp", "residual_encoder"])
def test_set_output_bias(name):
    net, size_in, size_out = make(name)
    x = torch.rand(4, size_in)
    before, old = net(x), net[-1].bias.detach().clone()
    bias = torch.linspace(-3, 3, size_out)
    set_output_bias(net, bias)
    torch.testing.assert_close(net(x) - before, (bias - old).expand(4, -1), atol=1e-5, rtol=0)
    assert net[-1].bias.requires_grad


def test_set_output_bias_gives_the_mean_image_at_the_origin():
    torch.manual_seed(0)
    images = (torch.rand(1000, 64) < torch.linspace(0, 1, 64)).float()
    net = mlp(2, 64)
    set_output_bias(net, images.mean(0).clamp(0.001, 0.999).logit())
    torch.testing.assert_close(net(torch.zeros(2)).sigmoid(), images.mean(0), atol=1.1e-3, rtol=0)


def test_set_output_bias_refuses():
    with pytest.raises(
        TypeError,
        match=r"expected a network that ends in nn\.Linear with a bias, got ConvTranspose2d",
    ):
        set_output_bias(conv_decoder(2, (1, 8, 8)), torch.zeros(64))
    with pytest.raises(
        TypeError, match=r"expected a network that ends in nn\.Linear with a bias, got Tanh"
    ):
        set_output_bias(nn.Sequential(nn.Linear(2, 64), nn.Tanh()), torch.zeros(64))
    with pytest.raises(ValueError, match=r"expected a bias of shape \(64,\), got \(1,\)"):
        set_output_bias(mlp(2, 64), torch.zeros(1))
