"""The contract of every posterior family: shapes, rows, expansion, training, saving."""

import pytest
import torch
from families import DENSITIES, FAMILIES, REAL, Counting, build, inputs, pixels, prior_for
from torch import nn
from torch.func import functional_call

from pyro_vae import (
    VAE,
    Bernoulli,
    Trace_ELBO,
    TraceMeanField_ELBO,
    log_likelihood,
    mlp,
)
from pyro_vae.families.full_rank import FullRankNormal
from pyro_vae.families.low_rank import LowRankNormal
from pyro_vae.families.mixture import MixtureOfNormals
from pyro_vae.objectives.importance_weighted import IWAE
from pyro_vae.programs.pair import Pair

families = pytest.mark.parametrize("name", FAMILIES)
densities = pytest.mark.parametrize("name", DENSITIES)
reals = pytest.mark.parametrize("name", REAL)


def vae_with(name: str, dim: int = 3) -> VAE:
    torch.manual_seed(0)
    encoder = FAMILIES[name](5, dim)
    encoder.net = Counting(encoder.net)
    return VAE(prior_for(name, dim), Bernoulli(mlp(dim, 8, 5)), encoder).double()


@families
def test_any_leading_dimensions(name):
    family = build(name)
    for leading in [(), (4,), (2, 4)]:
        q = family(inputs(*leading, 5))
        assert (q.batch_shape, q.event_shape) == (leading, (3,))
        z = q.rsample((6,))
        assert z.shape == (6, *leading, 3)
        assert q.log_prob(z).shape == (6, *leading)
        assert q.support.check(z).all()


@families
def test_rows_do_not_mix(name):
    family = build(name)
    x = inputs(4, 5)
    z = family(x).sample()
    rows = torch.stack([family(row).log_prob(value) for row, value in zip(x, z, strict=True)])
    if name != "delta":
        torch.testing.assert_close(family(x).log_prob(z), rows)
    assert (family(x).sample() == z).any() == (name == "delta")


@densities
def test_expands_as_a_plate_does(name):
    q = build(name)(inputs(4, 5))
    wide = q.expand((6, 4))
    z = wide.rsample()
    assert wide.batch_shape == (6, 4)
    assert z.shape == (6, 4, 3)
    torch.testing.assert_close(wide.log_prob(z), q.log_prob(z.clone()))
    assert len({tuple(row) for row in z.flatten(0, 1).tolist()}) == 24  # no draw is repeated


@families
def test_density_of_own_draw_is_the_density(name):
    q = build(name)(inputs(4, 5))
    z = q.rsample((5,))
    torch.testing.assert_close(q.log_prob(z), q.log_prob(z.clone()))


@families
@pytest.mark.parametrize("loss", [Trace_ELBO(), IWAE(4)], ids=["elbo", "iwae"])
def test_trains_and_the_encoder_sees_each_datum_once(name, loss):
    vae = vae_with(name)
    x = pixels()
    pair = Pair(vae.model, vae.guide)
    with pair.isolated(validate=True, strict=True):
        pair.structure(((x,), {}))
        vae.encoder.net.calls = vae.encoder.net.rows = 0
        if name == "delta" and isinstance(loss, IWAE):
            with pytest.raises(ValueError, match="a point has no importance weight"):
                loss.score(pair, (x,), {})
            return
        loss.score(pair, (x,), {}).loss.backward()
    assert (vae.encoder.net.calls, vae.encoder.net.rows) == (1, len(x))
    assert [
        n for n, p in vae.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0
    ] == []
    assert all(p.grad.isfinite().all() for p in vae.parameters())


@pytest.mark.parametrize("name", DENSITIES)
def test_weights_for_any_number_of_samples(name):
    vae = vae_with(name)
    estimate = log_likelihood(vae.model, vae.guide, pixels(), num_samples=20)
    assert estimate.isfinite().all()


@families
def test_saves_and_loads(name, tmp_path):
    family, other = build(name), build(name, seed=5)
    torch.save(family.state_dict(), tmp_path / "family.pt")
    other.load_state_dict(torch.load(tmp_path / "family.pt", weights_only=True))
    z = family(inputs(4, 5)).sample()
    torch.testing.assert_close(family(inputs(4, 5)).log_prob(z), other(inputs(4, 5)).log_prob(z))


class Loss(nn.Module):
    """The ELBO of a pair as a module, so that its tensors can be given as arguments."""

    def __init__(self, vae):
        super().__init__()
        self.vae, self.pair = vae, Pair(vae.model, vae.guide)

    def forward(self, x):
        with self.pair.isolated(validate=False):
            self.pair.structure(((x,), {}))
            torch.manual_seed(3)
            return Trace_ELBO(2).score(self.pair, (x,), {}).loss


@families
def test_gradient_as_a_function_of_its_parameters(name):
    """torch.func and autograd agree."""
    module, x = Loss(vae_with(name)), pixels()
    module(x)  # the structure is found eagerly, once
    free = {n: p.detach().clone().requires_grad_() for n, p in module.named_parameters()}
    grads = torch.func.grad(lambda free: functional_call(module, free, (x,)))(free)
    module(x).backward()
    for n, p in module.named_parameters():
        torch.testing.assert_close(grads[n], p.grad)


def test_delta_has_zero_log_density_by_convention():
    vae = vae_with("delta")
    estimate = Trace_ELBO().estimate(vae.model, vae.guide, pixels())
    z = vae.encoder(pixels()).v
    log_joint = vae.prior().log_prob(z).sum() + vae.decoder(z).log_prob(pixels()).sum()
    torch.testing.assert_close(-estimate.loss, log_joint)


@pytest.mark.parametrize(
    "name",
    [
        n
        for n in DENSITIES
        if n not in ("diagonal", "laplace", "power spherical", "von mises-fisher")
    ],
)
def test_analytic_kl_is_refused_where_there_is_none(name):
    vae = vae_with(name)
    with pytest.raises(TypeError, match="closed-form KL"):
        TraceMeanField_ELBO().estimate(vae.model, vae.guide, pixels())


ERRORS = {
    "outputs": (
        lambda: FullRankNormal(nn.Identity())(torch.ones(3, 6)),
        "as many outputs as FullRankNormal needs (2, 5, 9, ...), got 6",
    ),
    "rank": (lambda: LowRankNormal(nn.Identity(), rank=0), "rank of at least 1, got 0"),
    "low rank": (
        lambda: LowRankNormal(nn.Identity(), rank=2)(torch.ones(6)),
        "(4, 8, 12, ...), got 6",
    ),
    "components": (lambda: MixtureOfNormals(nn.Identity(), 0), "components of at least 1, got 0"),
    "mixture": (
        lambda: MixtureOfNormals(nn.Identity(), 2)(torch.ones(7)),
        "MixtureOfNormals(components=2) needs (6, 10, 14, ...), got 7",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name):
    call, message = ERRORS[name]
    with pytest.raises(ValueError, match="expected") as error:
        call()
    assert message in str(error.value)
