"""The layers of flows: inverses, Jacobians, and what importing the flow library leaves behind."""

import inspect
import subprocess
import sys

import pytest
import torch
from families import build, inputs
from torch import nn
from zuko.transforms import MonotonicAffineTransform, MonotonicRQSTransform

from pyro_vae import IWAE, VAE, Bernoulli, StandardNormal, Trace_ELBO, log_likelihood, mlp
from pyro_vae.families import flow
from pyro_vae.families.flow import Flow, FlowDistribution, FlowPrior
from pyro_vae.families.flow_layers import AutoregressiveLayer, CouplingLayer, PlanarLayer

LAYERS = {
    "planar": lambda dim: PlanarLayer(dim, 4),
    "autoregressive": lambda dim: AutoregressiveLayer(dim, 4, (16,)),
    "reversed autoregressive": lambda dim: AutoregressiveLayer(dim, 4, (16,), reverse=True),
    "affine coupling": lambda dim: CouplingLayer(dim, 4, (16,)),
    "spline coupling": lambda dim: CouplingLayer(dim, 4, (16,), bins=5),
}


@pytest.mark.parametrize("dim", [1, 2, 5])
@pytest.mark.parametrize("name", LAYERS)
def test_inverse_and_jacobian(name, dim):
    torch.manual_seed(0)
    layer = LAYERS[name](dim).double()
    z, context = 2 * inputs(50, dim), 3 * inputs(50, 4, seed=2)
    image, log_det = layer(z, context)
    before, same = layer.inverse(image, context)
    torch.testing.assert_close(before, z)
    torch.testing.assert_close(same, log_det)
    jacobian = torch.vmap(torch.func.jacrev(lambda z, c: layer(z, c)[0]))(z, context)
    torch.testing.assert_close(torch.linalg.slogdet(jacobian).logabsdet, log_det)


@pytest.mark.parametrize("name", LAYERS)
def test_the_inverse_carries_gradients(name):
    torch.manual_seed(0)
    layer = LAYERS[name](3).double()
    image, context = inputs(4, 3).requires_grad_(), inputs(4, 4, seed=2).requires_grad_()
    assert torch.autograd.gradcheck(layer.inverse, (image, context))


@pytest.mark.parametrize("bins", [1, 2, 8])
def test_splines_without_gradients_are_those_of_the_library(bins):
    torch.manual_seed(0)
    layer = CouplingLayer(7, 4, (16,), bins=bins).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.mul_(3)  # bins of very different sizes
    z, context = 4 * inputs(500, 7).unflatten(0, (5, 100)), 3 * inputs(100, 4, seed=2)
    recorded = layer(z, context.expand(5, 100, 4))
    with torch.no_grad():
        torch.testing.assert_close(layer(z, context.expand(5, 100, 4)), recorded)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("dim", [1, 2, 7])
def test_autoregressive_layers_are_those_of_the_library(dim, reverse):
    torch.manual_seed(0)
    layer = AutoregressiveLayer(dim, 4, (16, 8), reverse=reverse).double()
    z, context = 2 * inputs(500, dim).unflatten(0, (5, 100)), 3 * inputs(100, 4, seed=2)
    context = context.expand(5, 100, 4)
    torch.testing.assert_close(layer(z, context), layer.net(context).call_and_ladj(z))


def test_planar_layers_stay_invertible_where_weights_are_extreme():
    layer = PlanarLayer(2, 1)
    with torch.no_grad():
        layer.net.weight.zero_()
        layer.net.bias.copy_(torch.tensor([-50.0, 0.0, 50.0, 0.0, 0.3]))
    z = inputs(1000, 2).float()
    image, log_det = layer(z, torch.ones(1000, 1))
    assert log_det.isfinite().all()
    torch.testing.assert_close(
        layer.inverse(image, torch.ones(1000, 1))[0], z, atol=1e-2, rtol=1e-2
    )


def test_without_layers_a_flow_is_a_diagonal_normal():
    raw = inputs(4, 6)
    z = inputs(4, 3, seed=3)
    trusted = torch.distributions.Normal(raw[:, :3], (0.5 * raw[:, 3:]).exp())
    torch.testing.assert_close(
        Flow(nn.Identity(), 3, [])(raw).log_prob(z), trusted.log_prob(z).sum(-1)
    )


def test_a_draw_without_gradient_does_not_lend_its_density_to_one_with():
    q = build("iaf")(inputs(4, 5))
    z = q.sample()
    assert q.log_prob(z).requires_grad


def test_own_density_takes_one_pass_and_no_inversion(monkeypatch):
    calls = []
    monkeypatch.setattr(AutoregressiveLayer, "inverse", lambda *args: calls.append(args))
    q = build("iaf", dim=20)(inputs(4, 5))
    q.log_prob(q.rsample())
    with torch.no_grad():
        q.log_prob(q.sample())
    assert calls == []


@pytest.mark.parametrize("objective", [Trace_ELBO(20), IWAE(20)])
def test_no_draw_of_a_guide_is_inverted(monkeypatch, objective):
    """Neither in a step nor in an evaluation; the look at the programs inverts two copies."""
    vae = VAE(StandardNormal(3), Bernoulli(mlp(3, 8, 5)), build("iaf")).double()
    x = (inputs(4, 5) > 0).double()
    rows, inverse = [], AutoregressiveLayer.inverse

    def counted(self, z, context):
        rows.append(z[..., 0].numel())
        return inverse(self, z, context)

    monkeypatch.setattr(AutoregressiveLayer, "inverse", counted)
    assert objective.estimate(vae.model, vae.guide, x).loss.isfinite()
    assert log_likelihood(vae.model, vae.guide, x, num_samples=20).isfinite().all()
    assert max(rows) == 2 * len(x)


def test_the_flow_library_does_not_switch_validation_off():
    check = "torch.distributions.Distribution._validate_args is True"
    code = f"import torch, pyro_vae.families.flow; assert {check}"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", [name for name in LAYERS if name != "planar"])
def test_the_least_slope_is_stated(name, monkeypatch):
    """Versions of the flow library differ in its default, 1e-4 or 1e-3; the layers do not."""
    z, context = 2 * inputs(50, 3), 3 * inputs(50, 4, seed=2)
    results = []
    for slope in (1e-4, 1e-3):
        for transform in (MonotonicAffineTransform, MonotonicRQSTransform):
            default = inspect.signature(transform).parameters["slope"].default
            defaults = transform.__init__.__defaults__
            other = tuple(slope if value is default else value for value in defaults)
            monkeypatch.setattr(transform.__init__, "__defaults__", other)
            assert inspect.signature(transform).parameters["slope"].default == slope
        torch.manual_seed(0)
        results.append(LAYERS[name](3).double()(z, context))
    torch.testing.assert_close(*results, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("sample_shape", "parts"), [((), [3]), ((1,), [1]), ((25,), [2] * 12 + [1]), ((2, 9), [1, 1])]
)
def test_draws_in_parts_are_those_at_once(monkeypatch, sample_shape, parts):
    """Of 3 data at most 7 draws pass the layers together, 2 of each datum."""
    torch.manual_seed(0)
    layers = tuple(LAYERS[name](2).double() for name in ("autoregressive", "affine coupling"))
    numbers = {"loc": 2, "scale": 2, "context": 4}
    parameters = {name: torch.rand(3, size, dtype=torch.float64) for name, size in numbers.items()}
    q = FlowDistribution(**parameters, layers=layers)
    seen, drawn = [], []
    layers[0].register_forward_pre_hook(lambda layer, args: seen.append(args[0].shape[0]))
    for size in (1 << 13, 7):
        seen.clear()
        monkeypatch.setattr(flow, "PART", size)
        torch.manual_seed(1)
        with torch.no_grad():
            drawn.append((z := q.rsample(sample_shape), q.log_prob(z)))
    torch.testing.assert_close(*drawn)
    assert seen == parts


def test_a_flow_prior_needs_two_dimensions():
    with pytest.raises(ValueError, match="expected at least 2 dimensions to couple, got 1"):
        FlowPrior(1)
