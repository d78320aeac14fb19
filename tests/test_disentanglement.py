"""Mutual information of latents and factors against closed forms and quadrature; the sprites."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyro_vae.data import FACTORS, sprites
from pyro_vae.evaluation import FactorInformation, factor_information


def guide(loc, scale):
    """q(z | x_n) = N(loc_n, scale^2), one row per datum."""
    with pyro.plate("data", len(loc)):
        pyro.sample("z", dist.Normal(loc, scale).to_event(1))


def quadrature(loc, scale, factor):
    """I(z; v) of one latent: H(z) - H(z | v), from mixtures of normals on a grid."""
    grid = torch.linspace(-12, 12, 4001, dtype=torch.float64).unsqueeze(-1)
    density = torch.distributions.Normal(loc.double(), scale).log_prob(grid).exp()

    def entropy(rows):
        q = density[:, rows].mean(1)
        return float(torch.special.entr(q).sum() * (grid[1] - grid[0]))

    given = sum(
        entropy(factor == v) * float((factor == v).double().mean()) for v in factor.unique()
    )
    return entropy(factor == factor) - given


def product(*sizes):
    return torch.cartesian_prod(*(torch.arange(n) for n in sizes))


@pytest.mark.parametrize("num_draws", [300, 20_000])
def test_information_is_the_quadrature(num_draws):
    factors = product(2, 3) * 5 - 4  # any integers
    loc = torch.stack([1.0 * factors[:, 0] / 5, 0.3 * factors[:, 1] + 0.1 * factors[:, 0]], 1)
    torch.manual_seed(0)
    found = factor_information(guide, loc, 0.7, factors=factors, num_draws=num_draws)
    truth = torch.tensor(
        [[quadrature(loc[:, d], 0.7, factors[:, k]) for k in range(2)] for d in range(2)]
    )
    error = 1 / math.sqrt(num_draws)  # the log ratios have standard deviations below 1
    torch.testing.assert_close(found.information, truth.float(), atol=4 * error, rtol=0)
    torch.testing.assert_close(found.entropy, torch.tensor([2.0, 3.0]).log())


def test_one_factor_in_each_dimension_has_a_gap_of_one():
    factors = product(2, 4)
    found = factor_information(guide, 100.0 * factors, 0.1, factors=factors, num_draws=80)
    expected = torch.tensor([[math.log(2), 0.0], [0.0, math.log(4)]])
    torch.testing.assert_close(found.information, expected, atol=1e-5, rtol=0)
    assert found.mig == pytest.approx(1.0, abs=1e-5)


def test_a_factor_known_twice_has_no_gap():
    factors = product(3, 1).repeat(4, 1)[:, :1]
    loc = 50.0 * factors.expand(-1, 3)
    found = factor_information(guide, loc, 0.1, factors=factors, num_draws=60)
    assert found.mig == pytest.approx(0.0, abs=1e-5)


def test_gap_of_a_table():
    information = torch.tensor([[0.6, 0.0], [0.2, 0.1], [0.4, 0.5]])
    found = FactorInformation(information, torch.tensor([1.0, 2.0]))
    torch.testing.assert_close(found.gaps, torch.tensor([0.2, 0.2]))


@pytest.mark.parametrize(
    ("factors", "message"),
    [
        (torch.zeros(6, 1, dtype=torch.long), "at least two values"),
        (torch.rand(6, 1), "integers"),
        (torch.arange(5).unsqueeze(1), "for each of 6 data"),
    ],
)
def test_refuses_factors(factors, message):
    with pytest.raises(ValueError, match=message):
        factor_information(guide, torch.zeros(6, 2), 1.0, factors=factors)


def test_refuses_a_guide_without_marginals():
    def discrete(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Categorical(torch.ones(3)))

    with pytest.raises(ValueError, match="one continuous site"):
        factor_information(discrete, torch.zeros(6, 2), factors=product(6, 1)[:, :1])


def test_sprites_are_all_different():
    images, factors = sprites(32, places=3)
    assert len(factors) == 3 * 3 * 8 * 3 * 3 == len(images)
    assert factors.unique(dim=0).shape == factors.shape == (len(images), len(FACTORS))
    assert images.values.unique(dim=0).shape == images.values.shape


def test_sprites_are_what_their_factors_say():
    images, factors = sprites(64, places=3)
    x = images.all().view(-1, 64, 64)
    place = (torch.arange(64) + 0.5) / 32 - 1
    mass = x.sum((1, 2))
    oval = factors[:, 0] < 2  # a triangle's centre of mass is elsewhere
    for sums, name in ((x.sum(1), "x"), (x.sum(2), "y")):
        centre = (sums * place).sum(1) / mass
        expected = factors[:, FACTORS.index(name)] / 2 - 0.5
        torch.testing.assert_close(centre[oval], expected[oval], atol=0.02, rtol=0)
    length = 0.3 + 0.1 * factors[:, 1]
    area = torch.tensor([2.0, math.pi / 2, 1.0])[factors[:, 0]] * length**2  # in 32 x 32 pixels
    torch.testing.assert_close(mass / 32**2, area, atol=0, rtol=0.1)


def test_refuses_sprites_without_values():
    with pytest.raises(ValueError, match="at least one value"):
        sprites(16, scales=0)
