"""The numbers of an update of Adam, computed outside the compiled step."""

import math

import pytest
import torch

from pyro_vae.inference.adam import Corrections, adam_update, corrections


def states(counts):
    return [[torch.tensor(count), torch.zeros(2)] for count in counts]


@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.0, 0.0), (0.5, 0.99999999)])
def test_corrections_are_those_of_the_formula(betas):
    counts = [0.0, 1.0, 99_999.0]
    exact = [
        [1 / (1 - betas[0] ** (count + 1)), 1 / math.sqrt(1 - betas[1] ** (count + 1))]
        for count in counts
    ]
    (found,) = Corrections(states(counts), betas)()
    torch.testing.assert_close(found, torch.tensor(exact).t(), rtol=1e-6, atol=0)


def test_corrections_follow_the_step_counts():
    """Also over the steps that are computed together, and after a count was set anew."""
    betas, slots = (0.9, 0.999), states([0.0, 5.0])
    each = Corrections(slots, betas)
    for step in range(3 * Corrections.AHEAD):
        if step == Corrections.AHEAD // 2:
            slots[1][0].fill_(2.0)
        expected = Corrections(slots, betas)()
        torch.testing.assert_close(each(), expected, rtol=0, atol=0)
        for count, _ in slots:
            count += 1


def test_corrections_of_several_updates_are_those_of_each():
    slots, ahead = states([0.0, 5.0]), Corrections.AHEAD
    each, one = (Corrections(slots, (0.9, 0.999)) for _ in range(2))
    for updates in (1, 2, ahead - 1, 3, ahead + 5, 1, ahead, 2):
        found = each(updates)
        assert len(found) == updates
        for correction in found:
            torch.testing.assert_close([correction], one(), rtol=0, atol=0)
            for count, _ in slots:
                count += 1


def test_corrections_of_an_idle_parameter_stay():
    slots = states([3.0, 3.0])
    each = Corrections(slots, (0.9, 0.999))
    (first,) = each()
    for _ in range(3):
        slots[0][0] += 1
        torch.testing.assert_close(each()[0][:, 1], first[:, 1], rtol=0, atol=0)


def test_numbers_and_tensors_give_the_same_corrections():
    t = torch.tensor([1.0, 7.0, 1e6], dtype=torch.float64)
    tensors = corrections(t, (0.9, 0.999), torch.expm1)
    numbers = [corrections(float(each), (0.9, 0.999), math.expm1) for each in t]
    torch.testing.assert_close(torch.stack(tensors).t(), torch.tensor(numbers, dtype=t.dtype))


def test_moments_do_not_become_subnormal():
    """A gradient of zero leaves 0.9 times the moment, unless that is subnormal; NaN stays NaN."""
    tiny = torch.finfo(torch.float32).tiny
    first = torch.tensor([2 * tiny, 1.05 * tiny, -1.05 * tiny, torch.nan])
    p, grad, second = torch.ones(4), torch.zeros(4), torch.ones(4)
    flags = {"betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0, "maximize": False}
    lr, none = torch.tensor(1e-3), torch.ones(2)
    adam_update(p, grad, [torch.zeros(()), first, second], lr, none, flags)
    expected = torch.tensor([1.8 * tiny, 0.0, 0.0, torch.nan])
    torch.testing.assert_close(first, expected, rtol=1e-6, atol=0, equal_nan=True)
