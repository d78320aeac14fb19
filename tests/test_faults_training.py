"""Faults that an audit found in training: compiled attributes, replayed guides, idle parts, data
of another type."""

from dataclasses import dataclass

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoMultivariateNormal, AutoNormal
from pyro.nn import PyroModule, pyro_method
from sentences import refused, result_or_refusal
from torch import nn

from pyro_vae import (
    SVI,
    VAE,
    Bernoulli,
    DiagonalNormal,
    StandardNormal,
    Trace_ELBO,
    TraceMeanField_ELBO,
    log_likelihood,
    mlp,
)
from pyro_vae.evaluation.importance import Scorer
from pyro_vae.families.categorical import GumbelSoftmax, UniformOneHot
from pyro_vae.objectives.doubly_reparameterised import STL, DReG
from pyro_vae.objectives.importance_weighted import IWAE
from pyro_vae.objectives.objective import Estimate, Objective
from pyro_vae.programs.graphs import Graphs

B, D = 8, 6


def pixels(rows=B):
    return (torch.rand(rows, D, generator=torch.Generator().manual_seed(0)) > 0.5).double()


def plain():
    torch.manual_seed(0)
    return VAE(StandardNormal(2), Bernoulli(mlp(2, 8, D)), DiagonalNormal(mlp(D, 8, 4))).double()


def svi_of(pair, loss=None, compile=False, parameters=None):
    return SVI(
        pair.model,
        pair.guide,
        torch.optim.Adam(parameters or pair.parameters()),
        loss or Trace_ELBO(),
        compile=compile,
    )


# 7. Numbers that a graph has swallowed


def stepped(svi):
    """Two steps, or a refusal of the second."""
    svi.step(pixels())
    return lambda: svi.step(pixels())


def test_a_temperature_changed_after_compilation_is_refused(traced_only):
    torch.manual_seed(0)
    encoder = GumbelSoftmax(nn.Linear(D, 3), 0.7)
    vae = VAE(UniformOneHot(3), Bernoulli(nn.Linear(3, D)), encoder).double()
    again = stepped(svi_of(vae, TraceMeanField_ELBO(), compile=True))
    again()
    encoder.temperature = 0.1
    with refused():
        again()
    encoder.temperature = 0.7
    again()


@dataclass(frozen=True)
class Weighted(Objective):
    """An objective with a weight that may be set."""

    weight: float

    def score(self, pair, args, kwargs):
        estimate = Trace_ELBO().score(pair, args, kwargs)
        return Estimate(self.weight * estimate.loss, estimate.log_likelihood, estimate.kl)

    __hash__ = object.__hash__


def test_a_weight_of_an_objective_changed_after_compilation_is_refused_or_followed(traced_only):
    loss = Weighted(1.0)
    again = stepped(svi_of(plain(), loss, compile=True))
    once = again()
    object.__setattr__(loss, "weight", 100.0)
    now = result_or_refusal(again)
    assert now is None or float(now) > 10 * float(once)


class Shifted(nn.Module):
    """A decoder with a Python number."""

    def __init__(self):
        super().__init__()
        self.net, self.shift = mlp(2, 8, D).double(), 0.0

    def forward(self, z):
        return self.net(z) + self.shift


def test_a_number_changed_after_an_evaluation_was_compiled_is_refused(traced_only):
    vae = plain()
    vae.decoder = Bernoulli(Shifted())
    joint = Scorer(vae.model, vae.guide, compile=True)
    log_likelihood(vae.model, vae.guide, pixels(), num_samples=5, compile=joint)
    vae.decoder.net.shift = 3.0
    with refused():
        log_likelihood(vae.model, vae.guide, pixels(), num_samples=5, compile=joint)


# 9. Guides run again at their own draws


def through_an_auxiliary(vae):
    def guide(x):
        with pyro.plate("data", len(x)):
            u = pyro.sample("u", vae.encoder(x), infer={"is_auxiliary": True})
            pyro.sample("z", dist.Delta(u, event_dim=1))

    return guide


def loss_and_gradient(objective, vae, guide, x):
    vae.zero_grad()
    torch.manual_seed(1)
    with pyro.validation_enabled(True):
        loss = objective.estimate(vae.model, guide, x).loss
    loss.backward()
    return loss, torch.cat([p.grad.flatten() for p in vae.parameters()])


@pytest.mark.parametrize("objective", [DReG(3), STL(3)], ids=["dreg", "stl"])
def test_auxiliary_sites_survive_a_replay(objective):
    vae = plain()
    expected = loss_and_gradient(objective, vae, vae.guide, pixels())
    torch.testing.assert_close(
        loss_and_gradient(objective, vae, through_an_auxiliary(vae), pixels()), expected
    )


@pytest.mark.parametrize("objective", [DReG, STL])
def test_autoguides_are_replayed(objective):
    guide, model = autoguide_of(AutoNormal)
    values = []
    for loss in (objective(1), IWAE(1)):
        torch.manual_seed(1)
        with pyro.validation_enabled(True):
            values.append(loss.estimate(model, guide, pixels()).loss)
    torch.testing.assert_close(*values)


@pytest.mark.parametrize("objective", [DReG, STL, IWAE])
def test_a_joint_autoguide_is_global(objective):
    """Its latent of all data together has no weight for each datum."""
    guide, model = autoguide_of(AutoMultivariateNormal)
    assert Trace_ELBO().estimate(model, guide, pixels()).loss.isfinite()
    with refused():
        objective(1).estimate(model, guide, pixels())


def autoguide_of(autoguide):
    vae = plain()

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            pyro.sample("x", vae.decoder(z), obs=x)

    guide = autoguide(model)
    with pyro.get_param_store().scope():
        guide(pixels())
        guide.double()
    return guide, model


class Subsampled(PyroModule):
    """A plate that draws its own minibatch."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(0.4, dtype=torch.float64))

    @pyro_method
    def model(self, x):
        with pyro.plate("data", len(x), subsample_size=5) as rows:
            z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x[rows])

    @pyro_method
    def guide(self, x):
        with pyro.plate("data", len(x), subsample_size=5) as rows:
            pyro.sample("z", dist.Normal(self.gain * x[rows], 0.9))


@pytest.mark.parametrize("objective", [DReG, STL, IWAE])
def test_a_plate_that_subsamples_is_scaled_outside_the_logarithm(objective):
    pair, x = Subsampled(), torch.arange(20, dtype=torch.float64)
    pyro.set_rng_seed(0)
    elbo = Trace_ELBO(1).estimate(pair.model, pair.guide, x)
    pyro.set_rng_seed(0)
    same = objective(1).estimate(pair.model, pair.guide, x)
    torch.testing.assert_close(same.loss, elbo.loss)
    with refused():
        log_likelihood(pair.model, pair.guide, x, num_samples=3)


# 12. Parts that the first batch does not use


class Halves(PyroModule):
    """Labelled batches use q(z | x, y), others q(y | x) as well."""

    def __init__(self):
        super().__init__()
        self.q_y, self.q_z, self.p_x = (
            mlp(i, 8, o).double() for i, o in [(D, 3), (D + 3, 4), (5, D)]
        )

    @pyro_method
    def model(self, x, y=None):
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", dist.OneHotCategorical(x.new_ones(3) / 3), obs=y)
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            pyro.sample("x", Bernoulli(self.p_x)(torch.cat([z, y], -1)), obs=x)

    @pyro_method
    def guide(self, x, y=None):
        with pyro.plate("data", len(x)):
            if y is None:
                y = pyro.sample("y", dist.OneHotCategorical(logits=self.q_y(x)))
            pyro.sample("z", DiagonalNormal(self.q_z)(torch.cat([x, y], -1)))


def test_the_first_batch_may_leave_a_part_idle():
    pair = Halves()
    svi = svi_of(pair)
    before = [p.clone() for p in pair.q_y.parameters()]
    svi.step(pixels(), torch.eye(3, dtype=torch.float64)[torch.arange(B) % 3])
    assert all(torch.equal(p, q) for p, q in zip(pair.q_y.parameters(), before, strict=True))
    svi.step(pixels())
    assert not any(torch.equal(p, q) for p, q in zip(pair.q_y.parameters(), before, strict=True))


def test_parameters_of_no_program_are_refused():
    """The usual mistake: the optimiser holds another module's parameters."""
    vae, other = plain(), plain()
    with refused():
        svi_of(vae, parameters=[*vae.parameters(), *other.parameters()]).step(pixels())
    with refused():
        svi_of(vae, parameters=list(other.parameters())).step(pixels())


# 14. A compiled batch of other strides


def test_a_graph_takes_a_batch_of_other_strides():
    graphs = Graphs([nn.Linear(1, 1)])
    for x in (pixels(), pixels().T.contiguous().T):
        (found,) = graphs(lambda tensors, state, data: [2 * data[0] + 1], (), (x,))
        torch.testing.assert_close(found, 2 * x + 1)
