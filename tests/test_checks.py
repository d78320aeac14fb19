"""Calibration and predictive checks: silent where all is well, loud where it is not."""

import pytest
import scipy.stats
import torch
from linear_gaussian import LinearGaussian
from programs import PER_DATUM
from pyro_examples import ExampleM2

from pyro_vae.evaluation.calibration import Calibration
from pyro_vae.evaluation.calibration import simulation_based_calibration as calibration
from pyro_vae.evaluation.predictive import posterior_predictive_check

TRUTH = LinearGaussian(latent=3, observed=6)
GUIDES = {  # the rank histogram: flat, hill, valley, slope
    "exact": TRUTH.exact_encoder,
    "wide": lambda: TRUTH.wrong_encoder(shift=0.0, spread=1.4),
    "narrow": lambda: TRUTH.wrong_encoder(shift=0.0, spread=0.7),
    "shifted": lambda: TRUTH.wrong_encoder(shift=0.2, spread=1.0),
}


@pytest.mark.parametrize("name", GUIDES)
def test_ranks_tell_the_guide(name):
    torch.manual_seed(0)
    vae = TRUTH.vae(GUIDES[name]())
    result = calibration(vae.model, vae.guide, TRUTH.data(1000))
    p_values = result.p_values()
    counts = result.histogram().double()
    assert counts.sum(0).tolist() == [1000] * 3
    if name == "exact":
        assert bool((p_values > 0.01 / 3).all())
        return
    assert bool((p_values < 1e-4).all())
    middle, ends = counts[3:7].mean(0), counts[[0, -1]].mean(0)
    assert bool(
        {"wide": middle > ends, "narrow": middle < ends, "shifted": counts[0] > counts[-1]}[
            name
        ].all()
    )


def test_p_values_are_scipys():
    ranks = torch.randint(0, 50, (300, 4), generator=torch.Generator().manual_seed(0))
    result = Calibration(ranks, num_draws=49)
    trusted = scipy.stats.chisquare(result.histogram(10).numpy()).pvalue
    torch.testing.assert_close(result.p_values(10), torch.as_tensor(trusted))


def test_predictive_check_accepts_the_models_own_data():
    """The mean of a pixel: as the model has it, and as it has not."""
    torch.manual_seed(0)
    vae = TRUTH.vae()
    x = TRUTH.data(200)

    def mean(x: torch.Tensor) -> torch.Tensor:
        return x[:, 0].mean()

    assert (
        0.01
        < float(posterior_predictive_check(vae.model, vae.guide, x, statistic=mean).p_value)
        < 0.99
    )
    shifted = torch.cat([x[:, :1] + 2, x[:, 1:]], 1)
    assert (
        float(posterior_predictive_check(vae.model, vae.guide, shifted, statistic=mean).p_value)
        < 0.01
    )
    each = posterior_predictive_check(
        vae.model, vae.guide, x, statistic=lambda x: x.amax(-1), num_replications=10
    )
    assert each.p_value.shape == (200,)


@pytest.mark.parametrize("name", PER_DATUM)
def test_calibration_runs_on_every_pair(name):
    p = PER_DATUM[name]()
    result = calibration(p.model, p.guide, *p.args, num_draws=9, chunk_draws=20)
    assert len(result.ranks) == len(p.args[0])
    assert bool(((result.ranks >= 0) & (result.ranks <= 9)).all())


def test_errors():
    m2 = ExampleM2().double()
    with pytest.raises(
        ValueError, match="expected a number of bins that divides num_draws \\+ 1 = 10, got 3"
    ):
        Calibration(torch.zeros(4, 1, dtype=torch.int64), 9).histogram(3)
    with pytest.raises(ValueError, match="OneHotCategorical at site 'y'"):
        calibration(m2.model, m2.guide, m2.images())
    with pytest.raises(ValueError, match="expected one observed site, got"):
        posterior_predictive_check(
            m2.model, m2.guide, m2.images(), m2.labels(), statistic=lambda x: x.mean()
        )
