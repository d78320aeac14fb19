"""The density of vectors of pixels, summed in parts where no gradients are recorded."""

import pyro
import pytest
import torch
from torch import nn

from pyro_vae import Bernoulli
from pyro_vae.families.bernoulli import PART


@pytest.mark.parametrize("copies", [False, True])
@pytest.mark.parametrize("pixels", [784, 509, 256])
@pytest.mark.parametrize("rows", [1, PART // 784, 2 * PART // 256 + 1])
def test_the_sum_in_parts_is_the_sum(rows, pixels, copies):
    torch.manual_seed(0)
    logits = 5 * torch.randn(rows, pixels)
    logits[0] = 1000.0
    x = torch.bernoulli(torch.rand(rows, pixels))
    x = x[:1].expand(rows, -1) if copies else x
    with pyro.validation_enabled(False):
        q = Bernoulli(nn.Identity())(logits)
        expected = q.log_prob(x)
        double = Bernoulli(nn.Identity())(logits.double()).log_prob(x).float()
        torch.testing.assert_close(expected, double)
        with torch.no_grad():
            torch.testing.assert_close(q.log_prob(x), double)


def test_data_outside_the_support_are_refused_where_pyro_validates():
    logits = torch.zeros(2 * PART // 784, 784)
    with pyro.validation_enabled(True), torch.no_grad():
        q = Bernoulli(nn.Identity())(logits)
        with pytest.raises(ValueError, match="within the support"):
            q.log_prob(0.5 * torch.ones_like(logits))
