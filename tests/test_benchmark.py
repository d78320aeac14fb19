"""The contestants of the benchmark compute what they are compared by."""

import sys

import pyro.distributions as dist
import torch
from running import SCRIPTS

sys.path.append(str(SCRIPTS))

from benchmarks.contestants import hand_written, negative_elbo, random_images, traces_alone
from benchmarks.options import D, Options


def test_the_loss_by_hand_is_that_of_the_distributions():
    torch.manual_seed(0)
    x = random_images(4).double()
    logits, (loc, log_variance) = torch.randn(4, D).double(), torch.randn(2, 4, 3).double()
    q = dist.Normal(loc, (0.5 * log_variance).exp())
    kl = torch.distributions.kl_divergence(q, dist.Normal(torch.zeros(3).double(), 1.0)).sum()
    expected = kl - dist.Bernoulli(logits=logits).log_prob(x).sum()
    torch.testing.assert_close(negative_elbo(logits, x, loc, log_variance), expected)


def test_steps_by_hand_are_those_inside_pyros_handlers(monkeypatch):
    """The same losses from the same draws."""
    losses = {}
    for make in (hand_written, traces_alone):
        found = losses.setdefault(make.__name__, [])

        def kept(*args, found=found):
            found.append(negative_elbo(*args))
            return found[-1]

        monkeypatch.setattr("benchmarks.contestants.negative_elbo", kept)
        step = make(Options(batch=4, hidden=8, latent=3), random_images(4))
        torch.manual_seed(1)
        for _ in range(3):
            step()
    by_hand, traced = (torch.stack(each) for each in losses.values())
    torch.testing.assert_close(by_hand, traced)
    assert by_hand[0] != by_hand[2]
