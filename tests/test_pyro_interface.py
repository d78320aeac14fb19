"""Objectives as Pyro's ELBOs: in Pyro's SVI, as modules, against Pyro's values; Pyro's as ours."""

import math

import pyro
import pyro.distributions as dist
import pyro.infer
import pyro.optim
import pytest
import torch
from programs import PAIRS, binary, plain_vae, vae
from pyro import poutine
from pyro.distributions.testing.fakes import NonreparameterizedNormal
from pyro.infer.elbo import ELBOModule
from pyro.nn import PyroModule, pyro_method

from pyro_vae import IWAE, SVI, Trace_ELBO, TraceMeanField_ELBO
from pyro_vae.objectives.stock import AsItIs, adopt
from pyro_vae.programs.pair import Pair


@pytest.fixture
def store():
    """Pyro's parameter store, which the test fills and leaves empty."""
    yield pyro.get_param_store()
    pyro.clear_param_store()


def functions():
    """Plain functions with ``pyro.module`` and a ``pyro.param`` of their own."""
    module = plain_vae()

    def model(x):
        pyro.module("decoder", module.decoder)
        loc = pyro.param("loc", lambda: torch.zeros(3, dtype=torch.float64))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(loc, 1.0).to_event(1))
            pyro.sample("x", module.decoder(z), obs=x)

    def guide(x):
        pyro.module("encoder", module.encoder)
        with pyro.plate("data", len(x)):
            pyro.sample("z", module.encoder(x))

    return module, model, guide, {"loc", "decoder$$$net.0.weight", "encoder$$$net.0.weight"}


class Programs(PyroModule):
    """The same as a PyroModule with a parameter."""

    def __init__(self):
        super().__init__()
        bare = plain_vae()
        self.decoder, self.encoder = bare.decoder, bare.encoder
        self.loc = pyro.nn.PyroParam(torch.zeros(3, dtype=torch.float64))

    @pyro_method
    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(self.loc, 1.0).to_event(1))
            pyro.sample("x", self.decoder(z), obs=x)

    @pyro_method
    def guide(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", self.encoder(x))


def modules():
    module = Programs()
    return module, module.model, module.guide, {"loc", "encoder$$$net.0.weight"}


@pytest.mark.parametrize("make", [functions, modules])
def test_pyros_svi_trains_with_our_objective(make, store):
    module, model, guide, names = make()
    svi = pyro.infer.SVI(model, guide, pyro.optim.Adam({"lr": 0.02}), loss=IWAE(5))
    x = binary(20)
    losses = [svi.step(x) for _ in range(60)]
    assert names <= set(store.keys())
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10])
    assert store["loc"].abs().sum() > 0
    assert svi.evaluate_loss(x) < losses[0]
    assert all(torch.equal(p, module.get_parameter(n)) for n, p in module.named_parameters())


@pytest.mark.parametrize("num_particles", [1, 4])
def test_losses_are_those_of_pyros_trace_elbo(num_particles, store):
    programs = vae()
    theirs = pyro.infer.Trace_ELBO(num_particles, vectorize_particles=True, max_plate_nesting=1)
    values = []
    for elbo in (theirs, Trace_ELBO(num_particles)):
        for name in ("loss", "differentiable_loss", "loss_and_grads"):
            programs.module.zero_grad()
            torch.manual_seed(1)
            value = getattr(elbo, name)(programs.model, programs.guide, *programs.args)
            assert isinstance(value, float) == (name != "differentiable_loss")
            values.append(float(value.detach() if torch.is_tensor(value) else value))
        values.append(torch.cat([g.flatten() for g in programs.named_gradients().values()]))
    for mine, expected in zip(values[4:], values[:4], strict=True):
        torch.testing.assert_close(mine, expected)


def closures():
    """Plain functions over modules that they close over, and no word to Pyro."""
    module = plain_vae()

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(3), 1.0).to_event(1))
            pyro.sample("x", module.decoder(z), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", module.encoder(x))

    return module, model, guide


def as_modules():
    """Model and guide that are PyroModules, called."""
    inner = Programs()

    class Side(PyroModule):
        def __init__(self, side):
            super().__init__()
            self.inner, self.side = inner, side

        def forward(self, x):
            return getattr(self.inner, self.side)(x)

    return inner, Side("model"), Side("guide")


MADE = {"methods": lambda: modules()[:3], "functions": closures, "modules": as_modules}


@pytest.mark.parametrize("make", MADE.values(), ids=MADE)
def test_an_objective_of_two_programs_is_a_module(make):
    owner, model, guide = make()
    elbo = IWAE(4)(model, guide)
    assert isinstance(elbo, ELBOModule)
    assert set(elbo.parameters()) == set(owner.parameters())
    optim, x = torch.optim.Adam(elbo.parameters(), 0.02), binary(20)
    losses = []
    for _ in range(60):
        optim.zero_grad()
        loss = elbo(x)
        loss.backward()
        optim.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10])
    assert not list(pyro.get_param_store().keys())


def test_a_batch_belongs_to_estimate():
    programs = vae()
    with pytest.raises(TypeError, match=r"use objective\.estimate\(model, guide, \*args\)"):
        IWAE()(programs.model, programs.guide, *programs.args)


@pytest.mark.parametrize("reparameterized", [True, False])
@pytest.mark.parametrize("subsample", [None, 5])
def test_gradients_of_normal_normal(reparameterized, subsample):
    """p(z_i) = N(0, 1), p(x_i | z_i) = N(z_i, s), q(z_i) = N(m, c): the ELBO is known.

    ELBO = sum_i -(m^2 + c^2)/2 - ((x_i - m)^2 + c^2)/(2 s^2) + log c + const. The mean of 100
    gradients lies within 4 standard errors.
    """
    x, noise = torch.linspace(-1.0, 2.0, 10, dtype=torch.float64), 0.7
    m = torch.tensor(0.2, dtype=torch.float64, requires_grad=True)
    c = torch.tensor(0.6, dtype=torch.float64, requires_grad=True)
    family = dist.Normal if reparameterized else NonreparameterizedNormal

    def model(x):
        with pyro.plate("data", len(x), subsample_size=subsample) as rows:
            z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            pyro.sample("x", dist.Normal(z, noise), obs=x[rows])

    def guide(x):
        with pyro.plate("data", len(x), subsample_size=subsample):
            pyro.sample("z", family(m, c))

    fit = ((x - m).square() + c.square()) / (2 * noise**2)
    exact = (fit + (m.square() + c.square()) / 2 - c.log()).sum()
    truth = torch.stack(torch.autograd.grad(exact, [m, c]))
    torch.manual_seed(0)
    objective, draws = Trace_ELBO(10), []
    for _ in range(100):
        loss = objective.estimate(model, guide, x).loss
        draws.append(torch.stack(torch.autograd.grad(loss, [m, c])))
    sampled = torch.stack(draws)
    error = sampled.std(0) / math.sqrt(len(sampled))
    assert ((sampled.mean(0) - truth).abs() < 4 * error).all()
    assert truth[0].abs() > 4 * error[0]


def score(objective, model, guide, *args):
    torch.manual_seed(1)
    return objective.score(Pair(model, guide), args, {})


ADOPTED = {
    "sampled": pyro.infer.Trace_ELBO(),
    "analytic": pyro.infer.TraceMeanField_ELBO(),
    "renyi": pyro.infer.RenyiELBO(
        alpha=0.3, num_particles=2, vectorize_particles=True, max_plate_nesting=1
    ),
}


@pytest.mark.parametrize("elbo", ADOPTED.values(), ids=ADOPTED)
@pytest.mark.parametrize("title", ["vae", "top-down", "pyro style"])
def test_adopted_objectives_have_pyros_value(elbo, title):
    programs = PAIRS[title]()
    with pyro.get_param_store().scope():
        mine = score(adopt(elbo), programs.model, programs.guide, *programs.args)
        torch.manual_seed(1)
        expected = elbo.loss(programs.model, programs.guide, *programs.args)
    torch.testing.assert_close(mine.loss.item(), expected)


def test_a_scale_inside_the_logarithm_is_refused_and_no_closed_form_falls_back():
    programs = vae()
    model, guide = (poutine.scale(p, scale=0.5) for p in (programs.model, programs.guide))
    optim = torch.optim.Adam(programs.module.parameters())
    with pytest.raises(ValueError, match="expected programs without a scale for Pyro's RenyiELBO"):
        SVI(model, guide, optim, pyro.infer.RenyiELBO(num_particles=2)).step(*programs.args)

    def heavy(x):
        with pyro.plate("data", len(x)):
            prior = dist.StudentT(x.new_tensor(5.0)).expand([3]).to_event(1)
            pyro.sample("x", programs.module.decoder(pyro.sample("z", prior)), obs=x)

    svi = SVI(heavy, programs.guide, optim, pyro.infer.TraceMeanField_ELBO())
    assert svi.step(*programs.args).isfinite()
    assert svi.estimate.kl is None
    svi = SVI(programs.model, programs.guide, optim, pyro.infer.TraceMeanField_ELBO())
    assert svi.step(*programs.args).isfinite()
    assert svi.estimate.kl is not None


class Child(pyro.infer.Trace_ELBO):
    """Another loss under Pyro's name."""

    def differentiable_loss(self, model, guide, *args, **kwargs):
        return 0 * super().differentiable_loss(model, guide, *args, **kwargs) + 7.0


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")
def test_subclasses_run_as_they_are():
    programs = vae()
    for elbo in (Child(), pyro.infer.JitTrace_ELBO()):
        assert isinstance(adopt(elbo), AsItIs)
        with pytest.raises(TypeError, match="to compile, got Pyro's"):
            adopt(elbo, compile=True)
    optim = torch.optim.SGD(programs.module.parameters(), 0.1)
    svi = SVI(programs.model, programs.guide, optim, Child())
    assert float(svi.step(*programs.args)) == 7.0
    assert isinstance(adopt(pyro.infer.Trace_ELBO(3)), Trace_ELBO)
    assert not isinstance(adopt(pyro.infer.TraceMeanField_ELBO()), TraceMeanField_ELBO)
