"""VQ-VAE: sums over all codes, the gradient straight through, the learned prior, the script."""

import itertools
import json
import math

import pyro
import pytest
import torch
from running import module
from torch import nn

from pyro_vae import Bernoulli, Trace_ELBO, log_weights, mlp
from pyro_vae.families import AutoregressiveCodes, Codebook, NearestCode, UniformCodes
from pyro_vae.models import VQVAE
from pyro_vae.nets import ChannelsFirst, RecurrentLogits, code_encoder

K, E, N, PIXELS = 4, 3, 2, 5


@pytest.fixture
def vq():
    torch.manual_seed(0)
    book = Codebook(K, E)
    decoder = Bernoulli(nn.Sequential(ChannelsFirst(), mlp(E * N, 8, PIXELS)))
    encoder = NearestCode(mlp(PIXELS, 8, E * N), book)
    return VQVAE(UniformCodes(book, N), decoder, encoder).double()


@pytest.fixture
def x():
    return torch.rand(6, PIXELS, generator=torch.Generator().manual_seed(1)).round().double()


def all_codes():
    return torch.tensor(list(itertools.product(range(K), repeat=N)))


def learned(vq):
    torch.manual_seed(2)
    return AutoregressiveCodes(vq.encoder.codebook, RecurrentLogits(2 * E, 8, K), N, 1).double()


def test_probabilities_of_all_codes_sum_to_one(vq):
    z = vq.encoder.codebook(all_codes())
    for prior in (vq.prior, learned(vq)):
        total = prior().log_prob(z).logsumexp(0)
        torch.testing.assert_close(total, torch.zeros((), dtype=torch.float64))


def test_samples_follow_the_learned_prior(vq):
    """Frequencies of 4000 draws against probabilities: 5 standard errors."""
    prior = learned(vq)
    torch.manual_seed(3)
    codes = vq.encoder.codebook.nearest(prior().sample((4000,)))
    p = prior().log_prob(vq.encoder.codebook(all_codes())).exp()
    same = (codes.unsqueeze(1) == all_codes()).all(-1).double().mean(0)
    assert ((same - p).abs() < 5 * (p * (1 - p) / 4000).sqrt()).all()


@pytest.mark.parametrize("prior", ["uniform", "learned"])
def test_weights_are_the_bound_and_lie_below_the_evidence(vq, x, prior):
    """log w = log p(x | e_k) + log p(k) at the nearest codes: one term of the sum over codes."""
    if prior == "learned":
        vq.prior = learned(vq)
    vq.eval()
    terms = torch.stack(
        [
            vq.prior().log_prob(z) + vq.decoder(z.expand(len(x), -1, -1)).log_prob(x)
            for z in vq.encoder.codebook(all_codes())
        ]
    )
    weights = log_weights(vq.model, vq.guide, x, num_samples=2)
    codes = vq.encoder(x).codes
    chosen = (all_codes() == codes.unsqueeze(1)).all(-1).int().argmax(-1)
    expected = terms[chosen, torch.arange(len(x))]
    torch.testing.assert_close(weights, expected.expand(2, -1))
    assert (weights < terms.logsumexp(0)).all()
    with torch.no_grad():
        loss = Trace_ELBO().estimate(vq.model, vq.guide, x).loss
    torch.testing.assert_close(-loss, expected.sum())


def test_gradients(vq, x):
    """Those of van den Oord's loss: straight through, codebook, commitment."""
    vq.train()
    Trace_ELBO().estimate(vq.model, vq.guide, x).loss.backward()
    ours = {name: p.grad.clone() for name, p in vq.named_parameters()}
    vq.zero_grad()
    h = vq.encoder.net(x).unflatten(-1, (E, N)).mT
    book = vq.encoder.codebook
    e = book(torch.cdist(h, book.vectors).argmin(-1))
    through = h + (e - h).detach()
    loss = -vq.decoder(through).log_prob(x).sum() + len(x) * N * math.log(K)
    loss = loss + (h.detach() - e).square().sum() + 0.25 * (h - e.detach()).square().sum()
    loss.backward()
    for name, p in vq.named_parameters():
        torch.testing.assert_close(ours[name], p.grad, msg=name)


def test_distance_is_no_part_of_the_bound_in_eval_mode(vq, x):
    pyro.set_rng_seed(0)
    with torch.no_grad():
        training = Trace_ELBO().estimate(vq.train().model, vq.guide, x).loss
        bound = Trace_ELBO().estimate(vq.eval().model, vq.guide, x).loss
    torch.testing.assert_close(training - bound, vq.encoder(x).cost(0.25).sum())


def test_idle_vectors_restart():
    torch.manual_seed(4)
    book = Codebook(8, 2)
    with torch.no_grad():
        book.vectors[4:] = 1e3
    h = torch.randn(500, 2)
    assert book.restart(h) >= 4
    assert book.vectors.abs().max() < 10
    assert book.restart(h) < 4


def test_a_restart_takes_no_row_twice():
    """Background patches have equal outputs: three different rows can replace three vectors."""
    book = Codebook(8, 2)
    with torch.no_grad():
        book.vectors[1:] = 1e3
    h = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]).repeat(50, 1)
    assert book.restart(h) == 3
    assert len(book.vectors[1:4].unique(dim=0)) == 3
    assert book.vectors[4:].eq(1e3).all()


def test_a_draw_has_density_one_where_two_codes_have_nearly_one_vector(vq, x):
    """The vectors differ by rounding alone, so the nearest code of a draw may be the other one."""
    with torch.no_grad():
        vq.encoder.codebook.vectors[1] = vq.encoder.codebook.vectors[0] * (1 + 1e-9)
        vq.encoder.codebook.vectors[2:] = 1e3
    for _ in range(20):
        q = vq.encoder(torch.randn(len(x), PIXELS).double())
        assert (q.log_prob(q.rsample()) == 0).all()
        assert (q.log_prob(q.rsample() + 1.0) == -torch.inf).all()


def test_refusals(vq, x):
    with pytest.raises(ValueError, match="expected commitment of at least 0, got -1"):
        VQVAE(vq.prior, vq.decoder, vq.encoder, commitment=-1)
    with pytest.raises(ValueError, match="expected number of at least 1, got 0"):
        Codebook(0, 2)
    with pytest.raises(ValueError, match="expected a multiple of 3 outputs"):
        NearestCode(nn.Linear(PIXELS, 4), Codebook(4, 3))(x.float())
    with pytest.raises(ValueError, match="expected sides that 4 divides, got 6 x 8"):
        code_encoder((1, 6, 8), 2)


def test_script(tmp_path):
    """Two epochs on the digits: both bounds, whose rates are their priors'."""
    main = module("programs/vq_vae").main
    options = "--dataset digits --epochs 2 --prior-epochs 1 --num-codes 8 --hidden 4"
    main(["--output-dir", str(tmp_path), *options.split(), "--prior-hidden", "4", "--no-progress"])
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["rate"] == pytest.approx(4 * math.log(8), rel=1e-4)
    assert result["bound"] == pytest.approx(-result["distortion"] - result["rate"], rel=1e-4)
    change = result["bound, learned prior"] - result["bound"]
    assert change == pytest.approx(result["rate"] - result["rate, learned prior"], rel=1e-3)
    assert 1 <= result["perplexity"] <= result["codes used"] <= 8
    assert (tmp_path / "figures" / "samples-learned.png").is_file()
