"""What every family shares: the head that it builds, its parents, and what it refuses."""

from functools import cached_property

import pytest
import torch
from families import CATEGORICAL, FAMILIES, LIKELIHOODS, inputs
from torch import nn

from pyro_vae import Bernoulli, Binomial, DiagonalNormal, FullRankNormal, LowRankNormal, mlp
from pyro_vae.families import (
    DiagonalLaplace,
    Flow,
    GumbelSoftmax,
    MixtureOfNormals,
    OneHotCategorical,
    RealNVP,
    VonMisesFisher,
)
from pyro_vae.families.normal import NormalDistribution
from pyro_vae.nets.precision import BFloat16

EVERY = FAMILIES | CATEGORICAL | LIKELIHOODS
every = pytest.mark.parametrize("name", EVERY)


class Wider(nn.Module):
    """A network with one output too many."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, h):
        output = self.net(h)
        return torch.cat([output, output[..., :1]], -1)


def test_each_element_of_an_expanded_scale_has_its_own_gradient():
    scale, x = torch.tensor(1.5, requires_grad=True), torch.arange(3.0)
    grads = []
    for kind in (NormalDistribution, torch.distributions.Normal):
        d = kind(torch.zeros(3), scale)
        grads += torch.autograd.grad(d.log_prob(x).sum(), d.scale)
        with torch.no_grad():
            torch.testing.assert_close(d.log_prob(x), kind(0.0, 1.5).log_prob(x))
    torch.testing.assert_close(*grads)


class Shifted(NormalDistribution):
    """A user's child, written as torch's documentation says."""

    def __init__(self, loc, scale, validate_args=None):
        super().__init__(loc + 1, scale, validate_args)

    def expand(self, batch_shape, _instance=None):
        new = self._get_checked_instance(Shifted, _instance)
        return super().expand(batch_shape, _instance=new)

    @cached_property
    def doubled(self):
        return 2 * self.loc


@pytest.mark.parametrize("validated", [False, True])
def test_a_child_of_a_normal_expands(validated):
    d = Shifted(torch.arange(3.0), torch.ones(3), validate_args=validated)
    assert d.doubled.shape == (3,)
    expanded = d.expand((2, 3))
    assert type(expanded) is Shifted
    torch.testing.assert_close(expanded.doubled, (2 * torch.arange(3.0) + 2).expand(2, 3))
    assert expanded._validate_args == validated


@every
def test_builds_its_head(name):
    family = EVERY[name](5, 3).double()
    assert family.net[-1].out_features == family.num_outputs
    q = family(inputs(2, 4, 5))
    assert (q.batch_shape, q.event_shape) == ((2, 4), (3,))


@every
def test_anything_but_its_outputs_is_refused(name):
    family = EVERY[name](5, 3)
    wanted, net = family.num_outputs, family.net
    family.net = Wider(net)
    with pytest.raises(ValueError, match=f"expected {wanted} outputs ") as error:
        family(torch.ones(4, 5))
    assert f"({family.layout}) from the network of {type(family).__name__}" in str(error.value)
    assert f"got shape (4, {wanted + 1})" in str(error.value)
    family.net = nn.LSTM(5, wanted)
    with pytest.raises(TypeError, match=r"got tuple: join the parts by torch\.cat") as error:
        family(torch.ones(4, 5))
    assert f"one tensor ({family.layout})" in str(error.value)


@every
def test_several_parents_are_joined(name):
    """The same parameters as those of the parents broadcast and concatenated by hand."""
    family = EVERY[name](5, 3).double().eval()
    z, y = inputs(6, 3, 2), inputs(3, 3, seed=2)
    by_hand = torch.cat([z, y.expand(6, 3, 3)], -1)
    torch.testing.assert_close(family.parameter(z, y), family.net(by_hand), rtol=0, atol=0)
    draws = []
    for parents in [(z, y), (by_hand,)]:
        torch.manual_seed(0)
        draws.append(family(*parents).sample())
    torch.testing.assert_close(*draws, rtol=0, atol=0)
    assert draws[0].shape == (6, 3, 3)


@pytest.mark.parametrize("leading", [((5, 3), (3,)), ((3,), (5, 3)), ((5, 1), (3,)), ((), (5, 3))])
def test_leading_dimensions_of_parents_broadcast(leading):
    z, y = inputs(*leading[0], 2), inputs(*leading[1], 4, seed=2)
    p = Bernoulli(mlp(6, 7)).double()
    together = torch.broadcast_shapes(*leading)
    by_hand = torch.cat([z.expand(*together, 2), y.expand(*together, 4)], -1)
    assert p(z, y).batch_shape == together
    torch.testing.assert_close(p(z, y).mean, p(by_hand).mean)


def test_three_parents_with_a_one_hot_label():
    label = nn.functional.one_hot(torch.tensor([0, 2, 1]), 3).double()
    z, x = inputs(5, 3, 2), inputs(3, 4, seed=2)
    p = Bernoulli(mlp(9, 7)).double()
    by_hand = torch.cat([z, x.expand(5, 3, 4), label.expand(5, 3, 3)], -1)
    torch.testing.assert_close(p(z, x, label).mean, p(by_hand).mean)


def test_one_parent_passes_unchanged():
    """Whatever its type: here the rows of a table."""
    table = nn.Embedding(10, 4)
    q = DiagonalNormal(table)(torch.tensor([3, 1]))
    torch.testing.assert_close(q.mean, table.weight[[3, 1], :2])


@pytest.mark.parametrize("family", [FullRankNormal, LowRankNormal, MixtureOfNormals, RealNVP])
def test_compiles_as_one_graph(family):
    torch.compiler.reset()
    q = family.over(lambda outputs: mlp(5, outputs), 3)

    def log_prob(x, y, z):
        return q(x, y).log_prob(z)

    x, y, z = torch.randn(6, 4, 3), torch.randn(4, 2), torch.randn(6, 4, 3)
    compiled = torch.compile(log_prob, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x, y, z), log_prob(x, y, z))


@pytest.mark.parametrize(
    "family", [DiagonalLaplace, FullRankNormal, LowRankNormal, MixtureOfNormals, VonMisesFisher]
)
@pytest.mark.parametrize("dim", [2, 3, 7])
def test_the_explicit_form_finds_its_dimension(family, dim):
    q = family(nn.Linear(5, family.outputs(dim)))(torch.ones(4, 5))
    assert q.event_shape == (dim,)


REFUSED = {
    "a network for a function": (
        lambda: DiagonalNormal.over(mlp(5, 4), 2),
        TypeError,
        "expected a function (outputs: int) -> nn.Module, got Flat",
    ),
    "no network": (
        lambda: DiagonalNormal.over(lambda outputs: outputs, 2),
        TypeError,
        "expected a function (outputs: int) -> nn.Module, got one that returns int",
    ),
    "no dimension": (
        lambda: DiagonalNormal.over(lambda outputs: mlp(5, outputs), 0),
        ValueError,
        "expected dim of at least 1, got 0",
    ),
    "no components": (
        lambda: MixtureOfNormals.over(lambda outputs: mlp(5, outputs), 2, components=0),
        ValueError,
        "expected components of at least 1, got 0",
    ),
    "a circle below": (
        lambda: VonMisesFisher.over(lambda outputs: mlp(5, outputs), 1),
        ValueError,
        "expected a sphere in at least 2 dimensions, got 1",
    ),
    "flow": (
        lambda: RealNVP(nn.Identity(), 3)(torch.ones(4, 21)),
        ValueError,
        "expected 22 outputs (loc, 2 log scale, context) from the network of RealNVP",
    ),
    "flow of unknown context": (
        lambda: Flow(nn.Identity(), 3, [])(torch.ones(4, 4)),
        ValueError,
        "expected at least 6 outputs (loc, 2 log scale, context) from the network of Flow",
    ),
    "too few dimensions": (
        lambda: Bernoulli(nn.Identity(), event_dim=3)(torch.ones(4, 4)),
        ValueError,
        "expected at least 3 dimensions (logits) from the network of Bernoulli, got (4, 4)",
    ),
    "no parent": (
        lambda: Bernoulli(nn.Identity())(),
        TypeError,
        "expected one parent, or several tensors (..., features), got []",
    ),
    "no tensors": (
        lambda: Bernoulli(nn.Identity())(torch.ones(3, 2), "label"),
        TypeError,
        "got [(3, 2), 'str']",
    ),
    "labels that are not one-hot": (
        lambda: Bernoulli(nn.Identity())(torch.ones(3, 2), torch.tensor([0, 1, 2])),
        TypeError,
        "encode a label by torch.nn.functional.one_hot(y, classes).float()",
    ),
    "parents that do not broadcast": (
        lambda: Bernoulli(nn.Identity())(torch.ones(5, 2), torch.ones(3, 2)),
        ValueError,
        "expected parents whose leading dimensions broadcast, got [(5, 2), (3, 2)]",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name):
    call, error, sentence = REFUSED[name]
    with pytest.raises(error) as caught:
        call()
    assert sentence in str(caught.value)


SQUASHED = {
    "sigmoid": nn.Sequential(nn.Linear(5, 3), nn.Sigmoid()),
    "softmax": nn.Sequential(nn.Linear(5, 3), nn.Softmax(-1)),
    "nested sigmoid": BFloat16(nn.Sequential(nn.Linear(5, 3), nn.Sequential(nn.Sigmoid()))),
}


@pytest.mark.parametrize("net", SQUASHED)
def test_probabilities_in_place_of_logits_are_refused(net):
    last = "Softmax" if net == "softmax" else "Sigmoid"
    sentence = f"expected logits, got a network whose last module is {last}"
    for family in (Bernoulli, OneHotCategorical, GumbelSoftmax, lambda net: Binomial(net, 4)):
        with pytest.raises(ValueError, match=sentence):
            family(SQUASHED[net])


def test_a_sigmoid_elsewhere_is_accepted():
    between = nn.Sequential(nn.Linear(5, 4), nn.Sigmoid(), nn.Linear(4, 3))
    assert Bernoulli(between)(torch.ones(5)).event_shape == (3,)
    assert DiagonalNormal(nn.Sequential(nn.Linear(5, 4), nn.Sigmoid()))(torch.ones(5)).event_shape


@pytest.mark.parametrize("dtype", [torch.float64, torch.int64])
def test_data_of_another_type_reach_the_network(dtype):
    """No family converts them, alone or joined: the network's own error is seen."""
    p = Bernoulli(nn.Linear(4, 3))
    for parents in [(torch.ones(2, 4, dtype=dtype),), 2 * (torch.ones(2, 2, dtype=dtype),)]:
        with pytest.raises(RuntimeError, match="dtype"):
            p(*parents)
