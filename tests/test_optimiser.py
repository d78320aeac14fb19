"""The step of torch's optimisers, with and without the Python around the kernel of fused Adam."""

import copy
import functools

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from pyro_vae.inference import optimiser
from pyro_vae.inference.optimiser import forget_gradients, take_step

KERNEL = {
    "Adam": lambda p: Adam(p, lr=0.1, fused=True),
    "AdamW": lambda p: AdamW(p, lr=0.1, fused=True),
    "amsgrad": lambda p: Adam(p, lr=0.1, amsgrad=True, fused=True),
    "weight decay": lambda p: Adam(p, lr=0.1, weight_decay=0.2, eps=1e-3, fused=True),
    "maximize": lambda p: AdamW(p, lr=0.1, betas=(0.5, 0.8), maximize=True, fused=True),
    "lr is a tensor": lambda p: Adam(p, lr=torch.tensor(0.1), fused=True),
    "groups": lambda p: Adam(
        [{"params": p[:1], "lr": 0.3}, {"params": p[1:], "betas": (0.0, 0.9)}], fused=True
    ),
}
TORCH = {
    "not fused": lambda p: Adam(p, lr=0.1),
    "foreach": lambda p: Adam(p, lr=0.1, foreach=True),
    "capturable": lambda p: Adam(p, lr=0.1, fused=True, capturable=True),
    "SGD": lambda p: SGD(p, lr=0.1, momentum=0.9),
}


def parameters(dtypes=(torch.float32,) * 3):
    generator = torch.Generator().manual_seed(0)
    sizes = [(3, 4), (4,), ()]
    return [
        nn.Parameter(torch.randn(size, generator=generator).to(dtype))
        for size, dtype in zip(sizes, dtypes, strict=True)
    ]


def set_gradients(each, step):
    """The second parameter has a gradient now and then, and the last one never."""
    generator = torch.Generator().manual_seed(step)
    used = [True, step % 3 == 1, False]
    for p, has_gradient in zip(each, used, strict=True):
        grad = torch.randn(p.shape, generator=generator).to(p.dtype)
        p.grad = grad if has_gradient else None


def runs(make, dtypes=(torch.float32,) * 3, steps=7):
    """The same steps by :func:`take_step` and by torch: each optimiser with its parameters."""
    pairs = []
    for update in (take_step, lambda optim: optim.step()):
        each = parameters(dtypes)
        optim = make(each)
        for step in range(steps):
            set_gradients(each, step)
            if step == 4:
                optim.param_groups[0]["lr"] = 0.01
            update(optim)
        pairs.append((optim, each))
    return pairs


@pytest.fixture
def updates(monkeypatch):
    """The groups that were updated by the kernel alone."""
    seen, update = [], optimiser._update
    monkeypatch.setattr(optimiser, "_update", lambda *args: seen.append(args) or update(*args))
    return seen


@pytest.mark.parametrize("name", [*KERNEL, *TORCH])
def test_a_step_is_that_of_torch(name, updates):
    (ours, ps), (theirs, expected) = runs((KERNEL | TORCH)[name])
    torch.testing.assert_close(ps, expected, rtol=0, atol=0)
    mine, others = ours.state_dict(), theirs.state_dict()
    torch.testing.assert_close(mine["state"], others["state"], rtol=0, atol=0)
    assert mine["param_groups"] == others["param_groups"]
    # the first step of each parameter is torch's
    assert bool(updates) == (name in KERNEL)


def test_parameters_of_several_types_are_torchs(updates):
    dtypes = torch.float32, torch.float64, torch.float32
    (_, ps), (_, expected) = runs(KERNEL["Adam"], dtypes)
    torch.testing.assert_close(ps, expected, rtol=0, atol=0)
    assert all(len({p.dtype for p in parameters}) == 1 for _, parameters, _ in updates)


def test_after_a_state_was_loaded():
    (ours, ps), (theirs, expected) = runs(KERNEL["Adam"])
    for optim, each in ((ours, ps), (theirs, expected)):
        optim.load_state_dict(copy.deepcopy(optim.state_dict()))
        set_gradients(each, 9)
    take_step(ours)
    theirs.step()
    torch.testing.assert_close(ps, expected, rtol=0, atol=0)


def after_a_step():
    """A fused Adam whose parameters have gradients, after a step by torch."""
    each = parameters()
    optim = KERNEL["Adam"](each)
    set_gradients(each, 0)
    optim.step()
    return optim


def stepped(change):
    """A fused Adam after its first step, to which something was done."""
    optim = after_a_step()
    calls = []
    removed = change(optim, calls)
    try:
        take_step(optim)
    finally:
        if removed is not None:
            removed.remove()
    return calls


def wrapped(optim, calls):
    step = optim.step

    @functools.wraps(step)
    def counted(*args, **kwargs):
        calls.append(1)
        return step(*args, **kwargs)

    optim.step = counted


LISTENERS = {
    "pre hook": lambda o, calls: o.register_step_pre_hook(lambda *_: calls.append(1)),
    "post hook": lambda o, calls: o.register_step_post_hook(lambda *_: calls.append(1)),
    "global pre": lambda _, calls: register_optimizer_step_pre_hook(lambda *_: calls.append(1)),
    "global post": lambda _, calls: register_optimizer_step_post_hook(lambda *_: calls.append(1)),
    "replaced step": lambda o, calls: setattr(o, "step", lambda: calls.append(1)),
    "wrapped step": wrapped,
}


@pytest.mark.parametrize("name", LISTENERS)
def test_who_waits_for_a_step_is_called(name):
    assert stepped(LISTENERS[name]) == [1]


def test_a_step_of_all_instances_is_called(monkeypatch):
    calls = []

    def replace(optim, _):
        monkeypatch.setattr(Adam, "step", functools.wraps(Adam.step)(lambda _: calls.append(1)))

    stepped(replace)
    assert calls == [1]


def test_the_profiler_sees_steps_and_gradients():
    optim = after_a_step()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        take_step(optim)
        forget_gradients(optim)
    names = {event.key for event in profile.key_averages()}
    assert {"Optimizer.step#Adam.step", "Optimizer.zero_grad#Adam.zero_grad"} <= names


def test_betas_that_are_tensors_are_torchs():
    """Some versions of torch take them, where they have one element."""
    optim = after_a_step()
    assert optimiser._groups(optim) is not None
    optim.param_groups[0]["betas"] = torch.tensor([0.9]), torch.tensor([0.99])
    assert optimiser._groups(optim) is None


@pytest.mark.parametrize(
    ("flag", "lr"), [("differentiable", 0.1), ("foreach", torch.tensor(0.1))], ids=str
)
def test_settings_that_torch_refuses(flag, lr):
    optim = after_a_step()
    optim.param_groups[0] |= {flag: True, "lr": lr}
    with pytest.raises(RuntimeError):
        take_step(optim)


def test_the_step_of_a_child_is_called():
    class Counted(Adam):
        steps = 0

        def step(self, closure=None):
            self.steps += 1
            return super().step(closure)

    each = parameters()
    optim = Counted(each, fused=True)
    for step in range(3):
        set_gradients(each, step)
        take_step(optim)
    assert optim.steps == 3


def test_scaled_gradients_are_torchs(updates):
    """As a gradient scaler leaves them: an infinite one leaves the parameters as they were."""
    each = parameters()
    optim = KERNEL["Adam"](each)
    set_gradients(each, 0)
    take_step(optim)
    before = [p.clone() for p in each]
    optim.grad_scale, optim.found_inf = torch.tensor(2.0), torch.tensor(1.0)
    take_step(optim)
    torch.testing.assert_close(list(each), before, rtol=0, atol=0)
    assert not updates


def test_schedulers_see_the_steps(updates):
    """Torch warns where a scheduler steps first, and warnings are errors here."""
    each = parameters()
    optim = KERNEL["Adam"](each)
    schedule = torch.optim.lr_scheduler.StepLR(optim, 1, gamma=0.5)
    for step in range(2):
        set_gradients(each, 0)
        take_step(optim)
        schedule.step()
        assert optim.param_groups[0]["lr"] == 0.1 * 0.5 ** (step + 1)
    assert len(updates) == 1


def test_a_scheduler_sees_a_step_by_the_kernel():
    optim = after_a_step()
    take_step(optim)
    assert not hasattr(optim, "_opt_called")
    schedule = torch.optim.lr_scheduler.StepLR(optim, 1)
    take_step(optim)
    schedule.step()
    assert optim._opt_called


def test_sparse_gradients_are_refused_as_by_torch():
    table = nn.Embedding(4, 2, sparse=True)
    optim = Adam(table.parameters(), fused=True)
    optim.state[table.weight] = {
        "step": torch.zeros(()),
        "exp_avg": torch.zeros(4, 2),
        "exp_avg_sq": torch.zeros(4, 2),
    }
    table(torch.tensor([1])).sum().backward()
    with pytest.raises(RuntimeError, match="sparse"):
        take_step(optim)


def test_complex_parameters_are_torchs(updates):
    ends = []
    for update in (take_step, lambda optim: optim.step()):
        p = nn.Parameter(torch.tensor([1 + 2j, 3 - 1j]))
        optim = Adam([p], lr=0.1)  # torch has no fused Adam for them
        for group in optim.param_groups:
            group["fused"] = None
        for _ in range(3):
            p.grad = p.detach().clone()
            update(optim)
        ends.append(p.detach())
    torch.testing.assert_close(*ends, rtol=0, atol=0)
    assert not updates


@pytest.mark.parametrize("name", [*KERNEL, *TORCH])
def test_gradients_are_forgotten(name):
    each = parameters()
    optim = (KERNEL | TORCH)[name](each)
    set_gradients(each, 1)
    forget_gradients(optim)
    assert [p.grad for p in each] == [None] * 3


class Accumulating(SGD):
    def zero_grad(self, set_to_none=True):
        pass


def replaced_zero_grad(p):
    optim = SGD(p, lr=0.1)
    optim.zero_grad = lambda set_to_none=True: None
    return optim


@pytest.mark.parametrize("make", [lambda p: Accumulating(p, lr=0.1), replaced_zero_grad])
def test_an_optimiser_may_keep_gradients(make):
    each = parameters()
    optim = make(each)
    set_gradients(each, 1)
    forget_gradients(optim)
    assert [p.grad is None for p in each] == [False, False, True]
