"""SVI over modules: it trains what it is given, exactly as hand-written code would, and leaves
everything else as it was."""

import warnings

import pyro
import pyro.distributions as dist
import pyro.infer
import pyro.optim
import pytest
import torch
from programs import (
    LATENT,
    PAIRS,
    PER_DATUM,
    PIXELS,
    ROWS,
    BottomUp,
    Pair,
    PyroStyle,
    binary,
    decoder,
    encoder,
    pair,
    plain_vae,
)
from pyro import poutine
from pyro.infer.autoguide import AutoNormal
from pyro.nn import PyroModule, PyroParam, pyro_method
from torch import nn

from pyro_vae import (
    SVI,
    VAE,
    Bernoulli,
    DiagonalNormal,
    StandardNormal,
    Trace_ELBO,
    TraceMeanField_ELBO,
    linear,
    mlp,
)

LOSSES = {
    "ours": Trace_ELBO,
    "ours analytic": TraceMeanField_ELBO,
    "pyro": pyro.infer.Trace_ELBO,
    "pyro analytic": pyro.infer.TraceMeanField_ELBO,
}
FLAGS = (
    pyro.distributions.is_validation_enabled,
    pyro.infer.is_validation_enabled,
    pyro.poutine.is_validation_enabled,
)


def store():
    return pyro.get_param_store()


@pytest.fixture(autouse=True)
def _global_state_is_left_as_found():
    before = (
        dict(store().items()),
        [flag() for flag in FLAGS],
        torch.distributions.Distribution._validate_args,
    )
    assert not before[0]
    yield
    assert (
        dict(store().items()),
        [flag() for flag in FLAGS],
        torch.distributions.Distribution._validate_args,
    ) == before


def adam(module, lr=0.02):
    return torch.optim.Adam(module.parameters(), lr=lr)


def snapshot(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def assert_equal(state, expected):
    assert state.keys() == expected.keys()
    for name, value in state.items():
        assert torch.equal(value, expected[name]), name


def improvement(programs, loss, steps=100):
    """Train; return how far the loss falls as a share of where it was, over twenty evaluations at
    each end."""
    x = programs.args
    torch.manual_seed(0)
    svi = SVI(programs.model, programs.guide, adam(programs), loss=loss)
    before = sum(svi.evaluate_loss(*x) for _ in range(20))
    losses = [svi.step(*x) for _ in range(steps)]
    assert all(value.shape == () and not value.requires_grad for value in losses)
    after = sum(svi.evaluate_loss(*x) for _ in range(20))
    return float((before - after) / before)


# What trains


def test_three_same_named_vaes_in_one_process_all_learn():
    for seed in range(3):
        module = plain_vae(seed)
        before = snapshot(module)
        assert (
            improvement(Pair(module, module.model, module.guide, (binary(),)), Trace_ELBO()) > 0.3
        )
        assert all(not torch.equal(before[name], p) for name, p in module.named_parameters())
        assert not store()


@pytest.mark.parametrize("make", PAIRS.values(), ids=PAIRS)
def test_every_pair_learns(make):
    assert improvement(make(), Trace_ELBO()) > 0.3


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_our_svi_takes_pyros_elbos(loss):
    assert improvement(PAIRS["vae"](), loss()) > 0.3
    assert improvement(PAIRS["pyro style"](), loss()) > 0.3


@pytest.mark.parametrize("mine", [Trace_ELBO, TraceMeanField_ELBO])
def test_our_elbos_take_the_very_steps_of_pyros(mine):
    states = []
    for loss in (mine(), getattr(pyro.infer, mine.__name__)()):
        programs = PAIRS["vae"]()
        torch.manual_seed(3)
        svi = SVI(programs.model, programs.guide, adam(programs.module), loss=loss)
        losses = [svi.step(*programs.args) for _ in range(5)]
        states.append((snapshot(programs.module), losses))
    torch.testing.assert_close(states[0], states[1])


def stock_improvement(programs, loss, steps=100):
    """Pyro's own SVI and optimiser, in a scope of the store."""
    with store().scope():
        svi = pyro.infer.SVI(
            programs.model, programs.guide, pyro.optim.Adam({"lr": 0.02}), loss=loss
        )
        torch.manual_seed(0)
        before = sum(svi.evaluate_loss(*programs.args) for _ in range(20))
        for _ in range(steps):
            svi.step(*programs.args)
        return (before - sum(svi.evaluate_loss(*programs.args) for _ in range(20))) / before


@pytest.mark.parametrize("make", PER_DATUM.values(), ids=PER_DATUM)
def test_stock_svi_trains_the_same_programs(make):
    assert stock_improvement(make(), pyro.infer.Trace_ELBO()) > 0.3


@pytest.mark.parametrize(
    "make",
    [PAIRS["vae"], PAIRS["pyro style"], lambda: pair(Constrained)],
    ids=["vae", "pyro style", "constrained"],
)
def test_stock_and_ours_take_turns_on_one_object(make):
    programs, remaining = make(), 1.0
    ours, stock = (improvement, Trace_ELBO()), (stock_improvement, pyro.infer.Trace_ELBO())
    for (train, loss), steps in ((ours, 20), (stock, 20), (ours, 80)):
        before = snapshot(programs.module)
        remaining *= 1 - train(programs, loss, steps)
        assert all(
            not torch.equal(before[name], p) for name, p in programs.module.named_parameters()
        )
    assert remaining < 0.7


class Constrained(PyroModule):
    """Parameters of the module itself: a constrained and a plain one."""

    def __init__(self):
        super().__init__()
        self.prior, self.encoder, self.weight = (
            StandardNormal(LATENT),
            encoder(),
            nn.Parameter(0.1 * torch.randn(LATENT, PIXELS)),
        )
        self.prior_scale = PyroParam(torch.ones(LATENT), constraint=dist.constraints.positive)

    @pyro_method
    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, self.prior_scale).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=z @ self.weight).to_event(1), obs=x)

    @pyro_method
    def guide(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", self.encoder(x))


def test_constrained_and_plain_parameters_of_a_pyro_module_train():
    programs = pair(Constrained)
    before = snapshot(programs.module)
    assert improvement(programs, Trace_ELBO()) > 0.3
    assert all(
        not torch.equal(before[name], value) for name, value in programs.module.named_parameters()
    )
    assert (programs.module.prior_scale > 0).all()


def test_an_autoguide_trains():
    module = plain_vae()
    x = binary()
    guide = AutoNormal(module.model)
    with store().scope():
        guide(x)  # creates its parameters
    optim = torch.optim.Adam([*guide.parameters(), *module.decoder.parameters()], lr=0.02)
    svi = SVI(module.model, guide, optim, loss=Trace_ELBO())
    torch.manual_seed(0)
    losses = torch.stack([svi.step(x) for _ in range(80)])
    assert losses[-20:].mean() < 0.9 * losses[:20].mean()


def test_labelled_and_unlabelled_batches_in_turn():
    programs = PAIRS["labelled"]()
    x, y = programs.args
    torch.manual_seed(0)
    svi = SVI(programs.model, programs.guide, adam(programs.module), loss=Trace_ELBO())
    losses = torch.stack([svi.step(x) if i % 2 == 0 else svi.step(x, y) for i in range(100)])
    assert losses[-20:].mean() < 0.8 * losses[:20].mean()


def test_one_step_is_that_of_hand_written_pytorch():
    module, x = plain_vae(), binary()
    twin = plain_vae()
    svi = SVI(module.model, module.guide, adam(module), loss=Trace_ELBO())
    optim = adam(twin)
    for step in range(3):
        torch.manual_seed(step)
        loss = svi.step(x)

        torch.manual_seed(step)
        loc, log_variance = twin.encoder.net(x).chunk(2, -1)
        eps = torch.normal(torch.zeros_like(loc), torch.ones_like(loc))
        logits = twin.decoder.net(loc + (0.5 * log_variance).exp() * eps)
        log_x = -nn.functional.binary_cross_entropy_with_logits(logits, x, reduction="sum")
        z = loc + (0.5 * log_variance).exp() * eps
        log_ratio = (
            0.5 * (eps.square() + log_variance - z.square()).sum()
        )  # log p(z) - log q(z | x)
        expected = -(log_x + log_ratio)
        optim.zero_grad()
        expected.backward()
        optim.step()

        torch.testing.assert_close(loss, expected.detach())
        torch.testing.assert_close(module.state_dict(), twin.state_dict())


def test_the_estimate_tells_the_parts_apart():
    module, x = plain_vae(), binary()
    svi = SVI(module.model, module.guide, adam(module), loss=Trace_ELBO(beta=linear(4, 0.0, 2.0)))
    for beta in (0.0, 0.5, 1.0, 1.5, 2.0, 2.0):
        loss = svi.step(x)
        torch.testing.assert_close(loss, beta * svi.estimate.kl - svi.estimate.log_likelihood)
        torch.testing.assert_close(svi.estimate.elbo, svi.estimate.log_likelihood - svi.estimate.kl)
    assert svi.num_steps == 6


# What stays as it was


class WithBatchNorm(PyroStyle):
    def __init__(self):
        super().__init__()
        self.decoder = nn.Sequential(
            nn.Linear(LATENT, 16),
            nn.BatchNorm1d(16),
            nn.ReLU(),
            nn.Dropout(),
            nn.Linear(16, PIXELS),
        )


def as_functions():
    """Programs as plain functions over modules, as one writes them in a notebook."""
    bare = pair(WithBatchNorm)
    return Pair(
        bare.module, lambda x: bare.module.model(x), lambda x: bare.module.guide(x), bare.args
    )


@pytest.mark.parametrize(
    "make", [lambda: pair(WithBatchNorm), as_functions], ids=["methods", "functions"]
)
def test_evaluate_loss_moves_nothing(make):
    programs = make()
    optim = adam(programs.module)
    svi = SVI(programs.model, programs.guide, optim, loss=Trace_ELBO())
    svi.step(*programs.args)
    weights, moments, gradients = (
        snapshot(programs.module),
        optim.state_dict()["state"],
        programs.named_gradients(),
    )
    moments = {
        index: {name: value.clone() for name, value in state.items()}
        for index, state in moments.items()
    }
    gradients = {name: value.clone() for name, value in gradients.items()}
    programs.module.encoder.eval()  # a mode of its own, to come back to
    losses = [svi.evaluate_loss(*programs.args) for _ in range(2)]
    assert not losses[0].requires_grad
    assert_equal(snapshot(programs.module), weights)
    assert_equal(programs.named_gradients(), gradients)
    for index, state in optim.state_dict()["state"].items():
        assert_equal(state, moments[index])
    assert svi.num_steps == 1
    assert programs.module.decoder.training
    assert programs.module.decoder[1].training
    assert not programs.module.encoder.training


@pytest.mark.parametrize(
    "make", [lambda: pair(WithBatchNorm), as_functions], ids=["methods", "functions"]
)
def test_evaluation_uses_eval_mode_and_steps_use_training_mode(make):
    programs = make()
    batch_norm, seen = programs.module.decoder[1], []
    batch_norm.register_forward_hook(lambda module, args, out: seen.append(module.training))
    svi = SVI(programs.model, programs.guide, adam(programs.module), loss=Trace_ELBO())
    before = batch_norm.running_mean.clone()
    for call, training in (
        (svi.evaluate_loss, False),
        (svi.step, True),
        (svi.step, True),
        (svi.evaluate_loss, False),
    ):
        seen.clear()
        call(*programs.args)
        assert set(seen) == {training}
    assert not torch.equal(batch_norm.running_mean, before)


def test_a_step_updates_running_statistics_once():
    """The look at the first batch moves no buffer, whether it ends well or not."""
    programs = pair(WithBatchNorm)
    batch_norm = programs.module.decoder[1]
    svi = SVI(programs.model, programs.guide, adam(programs.module), loss=Trace_ELBO())
    with pytest.raises(ValueError, match="support"):
        svi.step(binary() / 2)
    assert int(batch_norm.num_batches_tracked) == 0
    for count in (1, 2):
        svi.step(*programs.args)
        assert int(batch_norm.num_batches_tracked) == count


@pytest.mark.parametrize("clip_norm", [0.1, 1.0, 1e9])
def test_clip_norm_is_the_norm_of_the_whole_gradient(clip_norm):
    module, twin = plain_vae(), plain_vae()
    for each, clip in ((module, clip_norm), (twin, None)):
        torch.manual_seed(0)
        SVI(
            each.model,
            each.guide,
            torch.optim.SGD(each.parameters(), lr=1.0),
            loss=Trace_ELBO(),
            clip_norm=clip,
        ).step(binary())
    start = nn.utils.parameters_to_vector(plain_vae().parameters())
    free = nn.utils.parameters_to_vector(twin.parameters()) - start
    clipped = nn.utils.parameters_to_vector(module.parameters()) - start
    torch.testing.assert_close(
        clipped, free * min(1.0, clip_norm / float(free.detach().norm())), rtol=1e-4, atol=1e-8
    )


@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize("call", ["step", "evaluate_loss", "later step"])
def test_flags_and_store_survive_a_program_that_raises(call, enabled):
    module, broken = plain_vae(), []

    def guide(x):
        if broken:
            raise ArithmeticError("broken")
        return module.guide(x)

    svi = SVI(module.model, guide, adam(module), loss=Trace_ELBO())
    if call == "later step":
        svi.step(binary())
    broken.append(True)
    with pyro.validation_enabled(enabled), store().scope():
        pyro.param("mine", torch.ones(2))
        state = store().get_state()
        flags = [flag() for flag in FLAGS]
        module.train()
        with pytest.raises(ArithmeticError, match="broken"):
            getattr(svi, call.split()[-1])(binary())
        assert [flag() for flag in FLAGS] == flags
        assert store().get_state() == state
    assert all(m.training for m in module.modules())
    assert torch.is_grad_enabled()
    assert not torch.nn.modules.module._global_forward_pre_hooks


@pytest.mark.parametrize("enabled", [True, False])
def test_a_step_leaves_flags_and_store_as_they_were(enabled):
    module = plain_vae()
    svi = SVI(module.model, module.guide, adam(module), loss=Trace_ELBO())
    with pyro.validation_enabled(enabled), store().scope():
        pyro.param("encoder$$$net.0.weight", torch.ones(2))  # the very name of a parameter of ours
        for call in (svi.step, svi.step, svi.evaluate_loss):
            call(binary())
            assert [flag() for flag in FLAGS] == [enabled] * 3
            assert list(store().keys()) == ["encoder$$$net.0.weight"]
            assert store()["encoder$$$net.0.weight"].shape == (2,)


def test_validation_is_on_at_the_first_step_and_off_later():
    seen, module = [], plain_vae()

    def guide(x):
        seen.append([flag() for flag in FLAGS])
        return module.guide(x)

    svi = SVI(module.model, guide, adam(module), loss=Trace_ELBO())
    svi.step(binary())
    assert seen[0] == [True] * 3
    for call, validated in ((svi.step, False), (svi.evaluate_loss, True)):
        seen.clear()
        call(binary())
        assert seen[-1] == [validated] * 3  # a first look at another mode comes before


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_frozen_parameters_stay_and_nothing_warns(loss):
    for programs in (PAIRS["vae"](), PAIRS["pyro style"]()):
        programs.module.decoder.requires_grad_(False)
        before = snapshot(programs.module)
        svi = SVI(programs.model, programs.guide, adam(programs.module), loss=loss())
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for _ in range(2):
                svi.step(*programs.args)
            svi.evaluate_loss(*programs.args)
        assert not caught
        assert_equal(
            snapshot(programs.module.decoder),
            {k[8:]: v for k, v in before.items() if k.startswith("decoder.")},
        )
        assert not torch.equal(
            nn.utils.parameters_to_vector(programs.module.encoder.parameters()),
            flat(before, "encoder."),
        )


def flat(state, prefix):
    return torch.cat([value.flatten() for name, value in state.items() if name.startswith(prefix)])


def test_part_of_the_parameters_can_be_trained_alone():
    """The E-step and the M-step: two optimisers over disjoint parameters of one pair."""
    module, x = plain_vae(), binary()
    steps = {
        name: SVI(module.model, module.guide, adam(getattr(module, name)), loss=Trace_ELBO())
        for name in ("encoder", "decoder")
    }
    for name, svi in steps.items():
        before = snapshot(module)
        svi.step(x)
        moved = {
            key.split(".")[0]
            for key, value in module.state_dict().items()
            if not torch.equal(value, before[key])
        }
        assert moved == {name}


# What is refused


def svi_of(model, guide, module, loss=None, **kwargs):
    return SVI(model, guide, adam(module), loss=loss or Trace_ELBO(), **kwargs)


def misspelt(module):
    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("Z", module.encoder(x))

    return guide


def observing(module):
    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", module.encoder(x))
            pyro.sample("x", module.decoder(torch.zeros(len(x), LATENT).double()), obs=x)

    return guide


def bare_parameter(module):
    def guide(x):
        loc = pyro.param("loc", torch.zeros(LATENT).double())
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, 1.0).to_event(1))

    return guide


def lazy_parameter(module):
    def guide(x):
        loc = pyro.param("loc", lambda: torch.zeros(LATENT).double())
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, 1.0).to_event(1))

    return guide


class Idle(VAE):
    def __init__(self, *parts):
        super().__init__(*parts)
        self.extra = nn.Linear(2, 2)


REFUSED = {
    "misspelt site": (
        lambda m: svi_of(m.model, misspelt(m), m),
        ValueError,
        r"missing \['z'\], unknown \['Z'\]",
    ),
    "observed site in the guide": (
        lambda m: svi_of(m.model, observing(m), m),
        ValueError,
        r"no observed sites in the guide, got \['x'\]",
    ),
    "no observed site": (
        lambda m: svi_of(poutine.block(m.model, hide=["x"]), m.guide, m),
        ValueError,
        "an observed site in the model",
    ),
    "bare pyro.param": (
        lambda m: svi_of(m.model, bare_parameter(m), m),
        ValueError,
        "nn.Parameter of a module, got 'loc'",
    ),
    "lazy pyro.param": (
        lambda m: svi_of(m.model, lazy_parameter(m), m),
        ValueError,
        "nn.Parameter of a module, got 'loc'",
    ),
    "parameters of another module": (
        lambda m: svi_of(m.model, m.guide, plain_vae()),
        ValueError,
        r"to be those of the model and the guide, got others of shapes \[\(16, 3\), ",
    ),
    "frozen programs": (
        lambda m: svi_of(m.model, m.guide, m.requires_grad_(False)),
        ValueError,
        "depend on trainable parameters",
    ),
}


@pytest.mark.parametrize(("make", "error", "message"), REFUSED.values(), ids=REFUSED)
def test_the_first_step_refuses(make, error, message):
    module = plain_vae()
    before = snapshot(module)
    svi = make(module)
    for _ in range(2):  # and goes on refusing
        with pytest.raises(error, match=message):
            svi.step(binary())
    assert_equal(snapshot(module), before)


def test_parameters_of_no_program_are_refused():
    module = Idle(StandardNormal(LATENT), decoder(), encoder()).double()
    before = snapshot(module)
    extra = torch.optim.Adam(module.extra.parameters())
    with pytest.raises(ValueError, match=r"got others of shapes \[\(2, 2\), \(2,\)\]"):
        SVI(module.model, module.guide, extra, loss=Trace_ELBO()).step(binary())
    assert_equal(snapshot(module), before)
    svi_of(module.model, module.guide, module).step(
        binary()
    )  # a part of the programs' own modules may stay idle
    stranger = nn.Parameter(torch.zeros(2, 2))
    with pytest.raises(ValueError, match=r"got others of shapes \[\(2, 2\)\]"):
        SVI(
            module.model,
            module.guide,
            torch.optim.Adam([*module.parameters(), stranger]),
            loss=Trace_ELBO(),
        ).step(binary())


def test_wrong_arguments_are_refused():
    module = plain_vae()
    with pytest.raises(TypeError, match=r"torch.optim.Optimizer, got PyroOptim"):
        SVI(module.model, module.guide, pyro.optim.Adam({"lr": 0.1}), loss=Trace_ELBO())
    with pytest.raises(TypeError, match="differentiable_loss, got TraceGraph_ELBO"):
        svi_of(module.model, module.guide, module, pyro.infer.TraceGraph_ELBO())
    for clip_norm in (0.0, -1.0):
        with pytest.raises(ValueError, match="positive clip_norm"):
            svi_of(module.model, module.guide, module, clip_norm=clip_norm)


@pytest.mark.parametrize("bad", ["evaluate_loss", "step"])
def test_data_outside_the_support_are_refused(bad):
    module = plain_vae()
    with pytest.raises(
        ValueError, match=r"site 'x' in the support .* of its Bernoulli, got values in \[0.5, 0.5\]"
    ):
        getattr(svi_of(module.model, module.guide, module), bad)(
            torch.full((3, PIXELS), 0.5).double()
        )


class Counting(SVI):
    """A step of the user's own."""

    taken = 0

    def step(self, *args, **kwargs):
        self.taken += 1
        return super().step(*args, **kwargs)


def test_several_steps_are_taken_by_a_step_of_the_users_own():
    module = plain_vae()
    svi = Counting(module.model, module.guide, torch.optim.Adam(module.parameters()), Trace_ELBO())
    estimates = svi.steps((binary(),) for _ in range(3))
    assert svi.taken == svi.num_steps == len(estimates) == 3
    assert len({estimate.loss.item() for estimate in estimates}) == 3


def test_a_step_that_is_replaced_for_all_is_the_step_of_several(monkeypatch):
    taken = []
    step = SVI.step
    monkeypatch.setattr(SVI, "step", lambda self, *args: taken.append(step(self, *args)))
    module = plain_vae()
    svi = svi_of(module.model, module.guide, module)
    estimates = svi.steps([(binary(),)] * 2)
    assert taken == [estimate.loss for estimate in estimates]


@pytest.mark.parametrize("compile", [False, True])
def test_beta_may_depend_on_the_step_before(traced_only, compile):
    """Of several steps in a call, too."""

    def losses(take):
        torch.manual_seed(0)
        module = plain_vae()
        adam = torch.optim.Adam(module.parameters())
        loss = Trace_ELBO(beta=lambda step: 1 / (1 + abs(float(svi.estimate.kl))) if step else 1.0)
        svi = SVI(module.model, module.guide, adam, loss, compile=compile)
        return torch.stack(take(svi, [(binary(),)] * 4))

    each = losses(lambda svi, batches: [svi.step(*batch) for batch in batches])
    together = losses(lambda svi, batches: [estimate.loss for estimate in svi.steps(batches)])
    torch.testing.assert_close(together, each, rtol=0, atol=0)


def test_a_schedule_is_asked_once_for_each_step():
    asked = []
    module = plain_vae()
    loss = Trace_ELBO(beta=lambda step: asked.append(step) or 1.0)
    svi = svi_of(module.model, module.guide, module, loss)
    svi.steps([(binary(),)] * 3)
    svi.step(binary())
    assert asked == [0, 1, 2, 3]


def test_steps_before_a_failing_one_count():
    module = plain_vae()
    svi = svi_of(module.model, module.guide, module)
    with pytest.raises(ValueError, match="expected input"):
        svi.steps([(binary(),), (binary(),), (torch.ones(3, PIXELS + 1),)])
    assert svi.num_steps == 2
    assert svi.steps([]) == []
    assert svi.num_steps == 2


def test_batches_of_any_size():
    torch.manual_seed(0)
    module = VAE(
        StandardNormal(LATENT),
        Bernoulli(mlp(LATENT, 8, PIXELS)),
        DiagonalNormal(mlp(PIXELS, 8, 2 * LATENT)),
    ).double()
    svi = svi_of(module.model, module.guide, module)
    for rows in (ROWS, 1, 3, ROWS):
        assert torch.isfinite(svi.step(binary(rows)))


def test_the_deeper_model_names_its_sites():
    programs = pair(BottomUp)
    with pytest.raises(ValueError, match=r"latent sites \['z1', 'z2'\], got \['z'\]"):
        svi_of(programs.model, plain_vae().guide, programs.module).step(*programs.args)
