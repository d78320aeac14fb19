"""The numbers of an update of Adam, computed outside the compiled step."""

import math

import pytest
import torch

from pyro_vae.inference.adam import _rates, adam_rates


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
