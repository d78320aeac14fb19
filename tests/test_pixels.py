"""The density of vectors of pixels, summed in parts where no gradients are recorded."""

import pyro
import pytest
import torch
from torch import nn

from pyro_vae import Bernoulli
from pyro_vae.families.events import PART


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


@pytest.mark.parametrize("scale", [5.0, 30.0, 1e36])
@pytest.mark.parametrize("copies", [False, True])
def test_sums_of_confident_pixels_do_not_cancel(scale, copies):
    """Logits of the right sign: log p(x) is near 0, and the sum of all logits is large."""
    torch.manual_seed(0)
    x = torch.bernoulli(torch.full((1, 11025), 0.5)).expand(50, -1)
    logits = (2 * x - 1) * (scale * (1 + torch.rand(50, 11025)))
    with pyro.validation_enabled(False), torch.no_grad():
        q = Bernoulli(nn.Identity())(logits)
        exact = Bernoulli(nn.Identity())(logits.double()).log_prob(x.double()).float()
        value = q.log_prob(x.clone() if copies else x)
    torch.testing.assert_close(value, exact, rtol=1e-5, atol=1e-4)


def test_a_plate_keeps_whether_a_distribution_validates():
    """An expanded distribution has the flag of the moment, and one of its own."""
    q = Bernoulli(nn.Identity())(torch.zeros(2, 5))
    with pyro.validation_enabled(True):
        strict = q.expand((2,))
    with pyro.validation_enabled(False):
        free = q.expand((2,))
        with pytest.raises(ValueError, match="within the support"):
            strict.log_prob(torch.full((2, 5), 0.5))
    with pyro.validation_enabled(True):
        assert free.log_prob(torch.full((2, 5), 0.5)).shape == (2,)


def test_no_rows_and_no_pixels():
    with pyro.validation_enabled(False), torch.no_grad():
        for rows, pixels in ((0, 5), (3, 0)):
            q = Bernoulli(nn.Identity())(torch.zeros(rows, pixels))
            assert q.log_prob(torch.zeros(1, pixels).expand(rows, -1)).equal(torch.zeros(rows))


def test_data_outside_the_support_are_refused_where_pyro_validates():
    logits = torch.zeros(2 * PART // 784, 784)
    with pyro.validation_enabled(True), torch.no_grad():
        q = Bernoulli(nn.Identity())(logits)
        with pytest.raises(ValueError, match="within the support"):
            q.log_prob(0.5 * torch.ones_like(logits))


@pytest.mark.parametrize("recorded", [True, False])
def test_batches_of_data_under_one_distribution(recorded):
    """As ``vmap`` over the data alone, whose logits have no batch."""
    torch.manual_seed(0)
    logits, x = torch.randn(3, 64), torch.bernoulli(torch.rand(5, 3, 64))
    with pyro.validation_enabled(False), torch.set_grad_enabled(recorded):
        density = Bernoulli(nn.Identity())(logits).log_prob
        torch.testing.assert_close(torch.vmap(density)(x), torch.stack([density(v) for v in x]))
