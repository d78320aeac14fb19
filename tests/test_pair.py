"""Draws of a pair: against separate runs at the same values, closed forms, and by hand."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from programs import PER_DATUM, fixed_draws
from pyro import poutine
from pyro.poutine.util import prune_subsample_sites
from torch import nn

from pyro_vae import (
    IWAE,
    VAE,
    Bernoulli,
    DiagonalNormal,
    StandardNormal,
    Trace_ELBO,
    log_likelihood,
    mlp,
)
from pyro_vae.evaluation import Scorer
from pyro_vae.programs.pair import Pair

K, B, D = 4, 5, 6


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def draw_of(model, guide, *args, num_particles=K, seed=1, **options):
    torch.manual_seed(seed)
    pair = Pair(model, guide)
    with pair.isolated(validate=True):
        return pair.draw(args, {}, num_particles, **options)


def traces_at(model, guide, z, *args):
    """The traces of both programs at given values."""
    guide_trace = poutine.trace(fixed_draws(guide, z)).get_trace(*args)
    model_trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(*args)
    return prune_subsample_sites(model_trace), prune_subsample_sites(guide_trace)


def log_joint_and_guide(model, guide, z, *args):
    """log p(x, z) and log q(z | x) of one run, over all its data."""
    with pyro.get_param_store().scope():
        traces = traces_at(model, guide, z, *args)
        return tuple(trace.log_prob_sum() for trace in traces)


@pytest.mark.parametrize("make", PER_DATUM.values(), ids=PER_DATUM)
def test_rows_of_a_draw_are_separate_runs(make):
    programs = make()
    draw = draw_of(programs.model, programs.guide, *programs.args)
    number = len(programs.args[0])
    assert draw.shape == (K, number)
    assert draw.structure.vectorized
    assert len(draw.model_traces) == 1
    for k in range(K):
        for b in range(number):
            z = {
                name: draw.structure.latents[name].to_rows(value[k : k + 1, b : b + 1])
                for name, value in draw.values.items()
            }
            datum = [arg[b : b + 1] for arg in programs.args]
            joint, guide = log_joint_and_guide(programs.model, programs.guide, z, *datum)
            local = draw.log_likelihood.local + draw.log_prior.local
            torch.testing.assert_close(local[k, b], joint)
            torch.testing.assert_close(draw.log_guide.local[k, b], guide)


class Head(nn.Module):
    """Strict layers: they take (N, ...) and nothing else."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind
        if kind == "conv":
            self.up, self.down = nn.ConvTranspose2d(2, 1, 4), nn.Conv2d(1, 4, 4)
        elif kind == "batch norm":
            self.up = nn.Sequential(nn.Linear(2, 16), nn.BatchNorm1d(16))
            self.down = nn.Sequential(nn.BatchNorm1d(16), nn.Linear(16, 4))
        else:
            self.up, self.down = nn.GRU(2, 4, batch_first=True), nn.GRU(4, 4, batch_first=True)

    def decode(self, z):
        if self.kind == "conv":
            return self.up(z.reshape(-1, 2, 1, 1)).flatten(1)
        if self.kind == "batch norm":
            return self.up(z)
        return self.up(z.unsqueeze(1).expand(-1, 4, -1))[0].flatten(1)

    def encode(self, x):
        if self.kind == "conv":
            return self.down(x.reshape(-1, 1, 4, 4)).flatten(1)
        if self.kind == "batch norm":
            return self.down(x)
        return self.down(x.reshape(-1, 4, 4))[1][0]


def strict(kind):
    torch.manual_seed(0)
    head = Head(kind).double().eval()

    def model(x):
        assert x.ndim == 2
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(head.decode(z), 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            loc, log_scale = head.encode(x).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))

    return head, model, guide


@pytest.mark.parametrize("kind", ["conv", "batch norm", "recurrent"])
def test_networks_that_take_one_batch_dimension(kind):
    head, model, guide = strict(kind)
    x = normal(B, 16)
    draw = draw_of(model, guide, x)
    assert draw.structure.vectorized
    z = draw.values["z"]
    for k in range(K):
        likelihood = dist.Normal(head.decode(z[k]), 1.0).to_event(1).log_prob(x)
        torch.testing.assert_close(draw.log_likelihood.local[k], likelihood)
    head.train()
    for objective in (Trace_ELBO(K), IWAE(K)):
        head.zero_grad()
        objective.estimate(model, guide, x).loss.backward()
        assert all(p.grad.isfinite().all() for p in head.parameters())


@pytest.mark.parametrize(("outer", "inner"), [(-1, -2), (-2, -1)])
def test_nested_plates(outer, inner):
    """One number z of each datum and feature; the sum over features is that of the datum."""

    def put(x):
        return x if outer == -2 else x.T

    def plates(x):
        return pyro.plate("data", len(x), dim=outer), pyro.plate("features", D, dim=inner)

    def model(x):
        rows, features = plates(x)
        with rows, features:
            z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            pyro.sample("x", dist.Normal(z, 0.5), obs=put(x))

    def guide(x):
        rows, features = plates(x)
        with rows, features:
            pyro.sample("z", dist.Normal(0.4 * put(x), 0.9))

    x = normal(B, D)
    draw = draw_of(model, guide, x)
    assert draw.structure.vectorized
    z = draw.values["z"].reshape(K, B, D)
    torch.testing.assert_close(draw.log_likelihood.local, dist.Normal(z, 0.5).log_prob(x).sum(-1))
    torch.testing.assert_close(draw.log_prior.local, dist.Normal(0.0, 1.0).log_prob(z).sum(-1))
    torch.testing.assert_close(draw.log_guide.local, dist.Normal(0.4 * x, 0.9).log_prob(z).sum(-1))


def shifted(x, size=None, subsample=None):
    """A global shift w beside a z of each datum, in a plate that may stand for more data."""

    def plate():
        return pyro.plate("data", size or len(x), subsample=subsample)

    def model(x):
        w = pyro.sample("w", dist.Normal(x.new_zeros(()), 1.0))
        with plate():
            z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            pyro.sample("x", dist.Normal(z + w, 0.5), obs=x)

    def guide(x):
        pyro.sample("w", dist.Normal(x.new_tensor(0.3), 0.8))
        with plate():
            pyro.sample("z", dist.Normal(0.4 * x, 0.9))

    return model, guide


@pytest.mark.parametrize("factor", [1, 3])
def test_global_sites_count_once_and_data_as_often_as_the_plate_says(factor):
    x = normal(B)
    subsample = None if factor == 1 else torch.arange(B)
    draw = draw_of(*shifted(x, factor * B, subsample), x)
    z = draw.values["z"]
    w = torch.stack([trace.nodes["w"]["value"] for trace in draw.guide_traces])
    assert w.shape == (K,)
    assert draw.scale == factor
    local = dist.Normal(0.0, 1.0).log_prob(z) - dist.Normal(0.4 * x, 0.9).log_prob(z)
    local = local + dist.Normal(z + w[:, None], 0.5).log_prob(x)
    whole = dist.Normal(0.0, 1.0).log_prob(w) - dist.Normal(0.3, 0.8).log_prob(w)
    expected = (factor * local.sum(-1) + whole).mean()
    torch.testing.assert_close(draw.total(draw.log_likelihood - draw.kl), expected)
    with pytest.raises(ValueError, match=r"got global sites \['w'\]"):
        draw.log_weight  # noqa: B018


def test_masked_rows_count_nothing():
    torch.manual_seed(0)
    vae = VAE(StandardNormal(2), Bernoulli(mlp(2, 8, D)), DiagonalNormal(mlp(D, 8, 4))).double()
    x, keep = (normal(B, D) > 0).double(), torch.tensor([1, 0, 1, 1, 0]).bool()

    def masked(program):
        def run(x, keep):
            with poutine.mask(mask=keep):
                program(x)

        return run

    draw = draw_of(masked(vae.model), masked(vae.guide), x, keep)
    plain = draw_of(vae.model, vae.guide, x)
    assert draw.structure.vectorized
    torch.testing.assert_close(draw.log_weight, torch.where(keep, plain.log_weight, 0.0))
    assert (plain.log_weight != 0).all()


@pytest.mark.parametrize("mask", [True, False])
def test_score_of_a_masked_draw(mask):
    """A mask takes a density out of the ELBO; the draws depend on the guide as before."""
    logit = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)

    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(pyro.sample("z", dist.Bernoulli(0.4)), 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)), poutine.mask(mask=mask):
            pyro.sample("z", dist.Bernoulli(logits=logit))

    x = torch.tensor([0.5, 2.0, -1.0], dtype=torch.float64)
    draw = draw_of(model, guide, x, num_particles=7)
    z = draw.values["z"]
    score = z - logit.sigmoid().detach()  # d log q(z) / d logit
    elbo = (draw.log_likelihood - draw.kl).local.detach()
    (gradient,) = torch.autograd.grad(
        draw.total(draw.with_score_gradient(draw.log_likelihood - draw.kl)), logit
    )
    torch.testing.assert_close(gradient, (elbo * score).mean(0).sum())


def test_a_call_of_a_new_kind_runs_each_program_twice_more():
    """Once to find the structure, once on two copies of the rows: the third run is the draw."""
    vae = PER_DATUM["vae"]()
    pair = Pair(vae.model, vae.guide)
    runs = []
    vae.module.encoder.net.register_forward_hook(lambda *_: runs.append("guide"))
    vae.module.decoder.net.register_forward_hook(lambda *_: runs.append("model"))
    with pair.isolated():
        for _ in range(2):
            pair.draw(vae.args, {})
    assert runs == ["guide", "model", "model", "guide"] + 2 * ["guide", "model"]


def test_the_number_of_sites_may_depend_on_the_size_of_a_datum():
    """A longer call after a shorter one: at the posterior every weight is p(x)."""

    def model(x):
        with pyro.plate("data", len(x)):
            for t in range(x.shape[1]):
                z = pyro.sample(f"z_{t}", dist.Normal(torch.zeros(len(x)), 1.0))
                pyro.sample(f"x_{t}", dist.Normal(z, 0.1), obs=x[:, t])

    def guide(x):
        with pyro.plate("data", len(x)):
            for t in range(x.shape[1]):
                pyro.sample(f"z_{t}", dist.Normal(x[:, t] / 1.01, (0.01 / 1.01) ** 0.5))

    x = torch.linspace(-1, 3, 12).view(4, 3)
    scorer = Scorer(model, guide)
    for steps in (2, 3, 1):
        part = x[:, :steps]
        exact = dist.Normal(0.0, 1.01**0.5).log_prob(part).sum(-1)
        torch.testing.assert_close(
            log_likelihood(model, guide, part, num_samples=5, compile=scorer), exact
        )


@pytest.mark.parametrize("validate", [None, False, True])
def test_isolation_leaves_every_flag_as_it_was(validate):
    """Torch's too, which torch.compile switches off while Pyro's stays on."""
    distribution = torch.distributions.Distribution
    pair = Pair(lambda: None, lambda: None)
    before = distribution._validate_args
    try:
        distribution.set_default_validate_args(not pyro.distributions.is_validation_enabled())
        inside = distribution._validate_args if validate is None else validate
        with pair.isolated(validate=validate):
            assert distribution._validate_args is inside
        assert distribution._validate_args is not pyro.distributions.is_validation_enabled()
    finally:
        distribution.set_default_validate_args(before)


def test_a_module_that_is_swapped_and_frozen_later_needs_no_registration():
    class Holder(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(2, 2)

    holder = Holder()

    def model(x):
        pyro.module("holder", holder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(holder.net(z), 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x, 1.0).to_event(1))

    pair = Pair(model, guide)
    x = torch.zeros(3, 2)
    with pair.isolated():
        pair.draw((x,), {})
    holder.net = nn.Linear(2, 2).requires_grad_(False)
    with pair.isolated():  # a warning would be an error
        assert pair.draw((x,), {}).log_weight.shape == (1, 3)
