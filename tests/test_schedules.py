"""Schedules of beta: what they say they are, at every step."""

import pytest
import torch
from programs import PAIRS

from pyro_vae import SVI, Trace_ELBO, cyclical, linear

STEPS = range(200)
SCHEDULES = {
    "linear": linear(50),
    "linear between": linear(50, 0.2, 4.0),
    "falling": linear(50, 4.0, 1.0),
    "one step": linear(1),
    "cyclical": cyclical(40),
    "quick cycles": cyclical(40, growth=0.1),
    "sawtooth": cyclical(40, growth=1.0, start=0.1, stop=2.0),
    "odd cycles": cyclical(7, growth=0.3),
}
ENDS = {"linear between": (0.2, 4.0), "falling": (4.0, 1.0), "sawtooth": (0.1, 2.0)}


@pytest.mark.parametrize("name", SCHEDULES)
def test_values_lie_between_start_and_stop(name):
    start, stop = ENDS.get(name, (0.0, 1.0))
    values = [SCHEDULES[name](step) for step in STEPS]
    assert all(isinstance(value, float) for value in values)
    assert min(values) >= min(start, stop)
    assert max(values) <= max(start, stop)
    assert values[0] == start


@pytest.mark.parametrize(
    "name", [name for name in SCHEDULES if "cycl" not in name and name != "sawtooth"]
)
def test_linear_is_monotone_and_stays(name):
    start, stop = ENDS.get(name, (0.0, 1.0))
    values = [SCHEDULES[name](step) for step in STEPS]
    assert values == sorted(values, reverse=start > stop)
    assert set(values[50:]) == {stop}
    assert len(set(values[:50])) == (1 if name == "one step" else 50) or values[1] == stop


def test_linear_grows_evenly():
    values = [linear(8, 1.0, 3.0)(step) for step in range(9)]
    assert values == pytest.approx([1.0 + 0.25 * step for step in range(9)])


@pytest.mark.parametrize(("period", "growth"), [(40, 0.5), (7, 0.3), (10, 1.0), (1, 0.5)])
def test_cyclical_repeats_itself(period, growth):
    schedule = cyclical(period, growth)
    values = [schedule(step) for step in STEPS]
    assert values[period:] == values[:-period]
    assert values[:period] == sorted(values[:period])
    assert values[:period] == pytest.approx(
        [min(step / (growth * period), 1.0) for step in range(period)]
    )


WRONG = {
    "no steps": (lambda: linear(0), "steps of at least 1, got 0"),
    "negative steps": (lambda: linear(-3), "steps of at least 1, got -3"),
    "no period": (lambda: cyclical(0), "period of at least 1, got 0"),
    "no growth": (lambda: cyclical(10, growth=0.0), r"growth in \(0, 1\], got 0.0"),
    "too much growth": (lambda: cyclical(10, growth=1.5), r"growth in \(0, 1\], got 1.5"),
}


@pytest.mark.parametrize(("make", "message"), WRONG.values(), ids=WRONG)
def test_wrong_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("name", SCHEDULES)
def test_svi_follows_the_schedule(name):
    """At step t the loss is that of beta(t); evaluate_loss uses the beta of the step to come."""
    programs, schedule = PAIRS["vae"](), SCHEDULES[name]
    svi = SVI(
        programs.model,
        programs.guide,
        torch.optim.SGD(programs.parameters(), lr=1e-3),
        loss=Trace_ELBO(beta=schedule),
    )
    for step in range(6):
        loss = svi.step(*programs.args)
        torch.testing.assert_close(
            loss, schedule(step) * svi.estimate.kl - svi.estimate.log_likelihood
        )
        torch.manual_seed(step)
        value = svi.evaluate_loss(*programs.args)
        torch.manual_seed(step)
        expected = SVI(
            programs.model, programs.guide, svi.optim, loss=Trace_ELBO(beta=schedule(step + 1))
        ).evaluate_loss(*programs.args)
        torch.testing.assert_close(value, expected)
