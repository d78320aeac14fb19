"""The numbers of an update of Adam, computed outside the compiled step."""

import math

import pytest
import torch

from pyro_vae.inference.adam import _rates, adam_rates, adam_update


@pytest.mark.parametrize("lr", [1e-3, torch.tensor(1e-3), 0.0])
@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.0, 0.0), (0.5, 0.99999999)])
def test_rates_are_those_of_the_formula(lr, betas):
    counts = [0.0, 1.0, 99_999.0]
    states = [[torch.tensor(count), torch.zeros(2)] for count in counts]
    rates = adam_rates(states, lr, {"betas": betas})
    exact = [
        [
            float(lr) / (1 - betas[0] ** (count + 1)),
            1 / math.sqrt(1 - betas[1] ** (count + 1)),
            float(lr),
        ]
        for count in counts
    ]
    torch.testing.assert_close(rates, torch.tensor(exact).t(), rtol=1e-6, atol=0)


def test_numbers_and_tensors_give_the_same_rates():
    t = torch.tensor([1.0, 7.0, 1e6], dtype=torch.float64)
    tensors = _rates(t, 1e-3 * torch.ones_like(t), (0.9, 0.999), torch.expm1)
    numbers = [_rates(float(each), 1e-3, (0.9, 0.999), math.expm1) for each in t]
    torch.testing.assert_close(torch.stack(tensors).t(), torch.tensor(numbers, dtype=t.dtype))


def test_moments_do_not_become_subnormal():
    """A gradient of zero leaves 0.9 times the moment, unless that is subnormal; NaN stays NaN."""
    tiny = torch.finfo(torch.float32).tiny
    first = torch.tensor([2 * tiny, 1.05 * tiny, -1.05 * tiny, torch.nan])
    p, grad, second = torch.ones(4), torch.zeros(4), torch.ones(4)
    flags = {"betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0, "maximize": False}
    rates = torch.tensor([1e-3, 1.0, 1e-3])
    adam_update(p, grad, [torch.zeros(()), first, second], rates, flags)
    expected = torch.tensor([1.8 * tiny, 0.0, 0.0, torch.nan])
    torch.testing.assert_close(first, expected, rtol=1e-6, atol=0, equal_nan=True)
