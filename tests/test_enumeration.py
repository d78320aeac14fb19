"""Sites that are summed out: against sums by hand over the classes, and Pyro's TraceEnum_ELBO."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import TraceEnum_ELBO
from torch import nn

from pyro_vae import IWAE, Trace_ELBO, log_likelihood, mlp
from pyro_vae.objectives import DReG, ReweightedWakeSleep, ScoreFunction_ELBO
from pyro_vae.programs.pair import Pair

D, L, C, B = 5, 2, 3, 6
MARK = {"enumerate": "parallel"}


def pixels(rows=B):
    return (torch.rand(rows, D, generator=torch.Generator().manual_seed(0)) > 0.5).double()


class M2(nn.Module):
    """p(y) p(z) p(x | y, z), q(y | x) q(z | x, y): Kingma et al. 2014."""

    def __init__(self, norm=False):
        super().__init__()
        torch.manual_seed(0)
        self.q_y, self.q_z = mlp(D, 8, C), mlp(D + C, 8, 2 * L)
        self.p_x = nn.Sequential(nn.BatchNorm1d(L + C) if norm else nn.Identity(), mlp(L + C, 8, D))
        self.double()

    def posterior(self, x, y):
        loc, log_scale = self.q_z(torch.cat([x, y], -1)).chunk(2, -1)
        return dist.Normal(loc, log_scale.exp()).to_event(1)

    def likelihood(self, z, y):
        return dist.Bernoulli(logits=self.p_x(torch.cat([z, y], -1))).to_event(1)

    def model(self, x, y=None):
        pyro.module("m2", self)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(L), 1.0).to_event(1))
            y = pyro.sample("y", dist.OneHotCategorical(x.new_ones(C) / C), obs=y)
            pyro.sample("x", self.likelihood(z, y), obs=x)

    def guide(self, x, y=None):
        with pyro.plate("data", len(x)):
            if y is None:
                prior = dist.OneHotCategorical(logits=self.q_y(x))
                y = pyro.sample("y", prior, infer=MARK)
            pyro.sample("z", self.posterior(x, y))

    def log_weight(self, x, y, z):
        """log p(x, y, z) - log q(z | x, y)."""
        prior = dist.Normal(0.0, 1.0).expand([L]).to_event(1).log_prob(z) - math.log(C)
        likelihood = self.likelihood(z, y).log_prob(x)
        return likelihood + prior - self.posterior(x, y).log_prob(z)


def draw_of(m2, x, num_particles):
    torch.manual_seed(3)
    pair = Pair(m2.model, m2.guide)
    with pair.isolated():
        return pair.draw((x,), {}, num_particles)


def by_hand(m2, x, K):
    """log q(y | x), (C, B), and log p(x, y, z) / q(z | x, y), (C, K, B), at the draws of ours."""
    z = draw_of(m2, x, K).values["z"].detach().reshape(C, K, B, L)
    classes = torch.eye(C, dtype=torch.float64)
    rows = [
        [m2.log_weight(x, classes[c].expand(B, C), z[c, k]) for k in range(K)] for c in range(C)
    ]
    return m2.q_y(x).log_softmax(-1).T, torch.stack([torch.stack(each) for each in rows])


@pytest.mark.parametrize("K", [1, 4])
def test_unlabelled_bounds_are_the_sums_over_the_classes(K):
    m2, x = M2(), pixels()
    log_q, log_w = by_hand(m2, x, K)
    elbo = (log_q.exp().unsqueeze(1) * (log_w - log_q.unsqueeze(1))).sum(0).mean(0).sum()
    torch.manual_seed(3)
    loss = Trace_ELBO(K).estimate(m2.model, m2.guide, x).loss
    torch.testing.assert_close(-loss, elbo, atol=1e-5, rtol=0)
    torch.manual_seed(3)
    with torch.no_grad():
        bound = -IWAE(K).estimate(m2.model, m2.guide, x).loss
    expected = (log_w.logsumexp(0).logsumexp(0) - math.log(K)).sum()
    torch.testing.assert_close(bound, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("K", [1, 4])
def test_labelled_bounds_are_those_of_the_class(K):
    m2, x, y = M2(), pixels(), torch.eye(C, dtype=torch.float64).repeat(2, 1)
    pair = Pair(m2.model, m2.guide)
    with pair.isolated():
        draw = pair.draw((x, y), {}, K)
    log_w = torch.stack([m2.log_weight(x, y, z) for z in draw.values["z"]])
    torch.testing.assert_close(draw.log_weight, log_w, atol=1e-5, rtol=0)


class Fixed(dist.Normal):
    """A Normal that draws the same noise at every datum, whatever its batch."""

    def rsample(self, sample_shape=()):
        shape = self._extended_shape(sample_shape)
        noise = torch.arange(float(B * L), dtype=torch.float64).sin().reshape(B, L)
        return self.loc + self.scale * noise.repeat(shape[:-2].numel() * shape[-2] // B, 1).reshape(
            shape
        )


def test_the_elbo_is_that_of_trace_enum():
    """Values and gradients, at the same noise."""
    m2, x = M2(), pixels()

    def posterior(x, y):
        shape = torch.broadcast_shapes(x.shape[:-1], y.shape[:-1])
        h = torch.cat([x.expand(*shape, D), y.expand(*shape, C)], -1)
        loc, log_scale = m2.q_z(h).chunk(2, -1)
        return Fixed(loc, log_scale.exp()).to_event(1)

    def likelihood(z, y):
        shape = torch.broadcast_shapes(z.shape[:-1], y.shape[:-1])
        h = torch.cat([z.expand(*shape, L), y.expand(*shape, C)], -1)
        return dist.Bernoulli(logits=m2.p_x(h)).to_event(1)

    m2.posterior, m2.likelihood = posterior, likelihood
    theirs = TraceEnum_ELBO(max_plate_nesting=1, strict_enumeration_warning=False)
    with pyro.get_param_store().scope():
        losses = (
            theirs.differentiable_loss(m2.model, m2.guide, x),
            Trace_ELBO().estimate(m2.model, m2.guide, x).loss,
        )
    results = [(loss, torch.autograd.grad(loss, list(m2.parameters()))) for loss in losses]
    torch.testing.assert_close(results[1], results[0])


class Mixture(nn.Module):
    """p(k) p(z) p(x | z, k) with z ~ N(0, 1), x ~ N(a_k + z, s): log p(x) is known."""

    def __init__(self):
        super().__init__()
        self.logits = nn.Parameter(torch.tensor([0.2, -0.5, 1.0], dtype=torch.float64))
        self.loc = nn.Parameter(torch.tensor([-2.0, 0.0, 3.0], dtype=torch.float64))

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            k = pyro.sample("k", dist.Categorical(logits=self.logits), infer=MARK)
            pyro.sample("x", dist.Normal(self.loc[k] + z, 0.7), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.3 * x, 0.8))

    def log_joint(self, x, z):
        """log sum_k p(k) p(x | z, k) + log p(z)."""
        components = dist.Normal(self.loc + z.unsqueeze(-1), 0.7).log_prob(x.unsqueeze(-1))
        likelihood = (self.logits.log_softmax(-1) + components).logsumexp(-1)
        return likelihood + dist.Normal(0.0, 1.0).log_prob(z)

    def log_p(self, x):
        components = dist.Normal(self.loc, math.hypot(1.0, 0.7)).log_prob(x.unsqueeze(-1))
        return (self.logits.log_softmax(-1) + components).logsumexp(-1)


@pytest.mark.parametrize("K", [1, 5])
def test_sites_of_the_model_alone_are_summed_out(K):
    mixture, x = Mixture(), torch.tensor([0.5, -1.0, 2.0, 3.0], dtype=torch.float64)
    z = draw_of(mixture, x, K).values["z"]
    log_w = mixture.log_joint(x, z) - dist.Normal(0.3 * x, 0.8).log_prob(z)
    bounds = {
        Trace_ELBO(K): log_w.mean(0).sum(),
        IWAE(K): (log_w.logsumexp(0) - math.log(K)).sum(),
    }
    for objective, expected in bounds.items():
        torch.manual_seed(3)
        loss = objective.estimate(mixture.model, mixture.guide, x).loss
        torch.testing.assert_close(-loss, expected, atol=1e-5, rtol=0)
        ours = torch.autograd.grad(-loss, list(mixture.parameters()))
        theirs = torch.autograd.grad(expected, list(mixture.parameters()), retain_graph=True)
        torch.testing.assert_close(ours, theirs)


def test_log_likelihood_of_a_mixture():
    """Within 4 standard errors of log p(x), in closed form; the weights' spread gives the error."""
    mixture, x = Mixture(), torch.tensor([0.5, -1.0, 2.0, 3.0], dtype=torch.float64)
    torch.manual_seed(0)
    number = 20_000
    value = log_likelihood(mixture.model, mixture.guide, x, num_samples=number)
    z = dist.Normal(0.3 * x, 0.8).sample((number,))
    log_w = mixture.log_joint(x, z) - dist.Normal(0.3 * x, 0.8).log_prob(z) - mixture.log_p(x)
    error = log_w.exp().std(0).detach() / number**0.5
    assert ((value - mixture.log_p(x).detach()).abs() < 4 * error).all()


def discrete(family=None, inner=False, sites=1):
    """A pair whose guide has marked sites."""
    q = nn.Parameter(torch.zeros(4, dtype=torch.float64))

    def program(x, observe):
        with pyro.plate("data", len(x)):
            for i in range(sites):
                fn = family() if family else dist.Categorical(logits=q)
                if inner:
                    with pyro.plate("inner", 2, dim=-2):
                        y = pyro.sample(f"y{i}", fn, infer=MARK).sum(0)
                else:
                    y = pyro.sample(f"y{i}", fn, infer=MARK)
            if observe:
                pyro.sample("x", dist.Normal(y.double(), 1.0), obs=x)

    return lambda x: program(x, True), lambda x: program(x, False)


REFUSED = {
    "batch norm": (
        lambda: Trace_ELBO().estimate(*programs(M2(norm=True).train()), pixels()),
        "expected no BatchNorm1d in train mode where sites",
    ),
    "combinations": (
        lambda: Trace_ELBO().estimate(*discrete(sites=6), pixels()[:, 0]),
        "expected at most 1024 combinations of values to sum out, got 4096",
    ),
    "training q(y | x) by IWAE": (
        lambda: IWAE(2).estimate(*programs(M2()), pixels()),
        r"expected no site of the guide to be summed out, got \['y'\], whose distribution",
    ),
    "inner plate": (
        lambda: Trace_ELBO().estimate(*discrete(inner=True), pixels()[:, 0]),
        "expected site 'y0', which is marked for enumeration, in the plate of the data alone",
    ),
    "infinite support": (
        lambda: Trace_ELBO().estimate(*discrete(lambda: dist.Poisson(1.0)), pixels()[:, 0]),
        "expected a family with finitely many values at site 'y0'.*got Poisson",
    ),
} | {
    type(objective).__name__: (
        lambda objective=objective: objective.estimate(*programs(M2()), pixels()),
        r"expected no site of the guide to be summed out, got \['y'\]",
    )
    for objective in (ScoreFunction_ELBO(2), DReG(2), ReweightedWakeSleep(2))
}


def programs(module):
    return module.model, module.guide


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name):
    call, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        call()
