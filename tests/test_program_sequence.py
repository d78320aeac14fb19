"""The VAE of sequences: its probabilities sum to one, and no step sees its future."""

import json
import os
from itertools import product

import pyro
import pytest
import torch
from running import module
from torch import nn

from pyro_vae import SVI, DiagonalNormal, StandardNormal, Trace_ELBO
from pyro_vae.data import Vocabulary, couplets, sentences
from pyro_vae.families import AdaptiveCategorical, Categorical
from pyro_vae.models import SequenceVAE
from pyro_vae.nets import DilatedDecoder, RecurrentDecoder, RecurrentEncoder

CLASSES, STEPS, LATENT, HIDDEN = 4, 3, 2, 6

DECODERS = {
    "recurrent": lambda **options: RecurrentDecoder(CLASSES, LATENT, hidden=HIDDEN, **options),
    "dilated": lambda **options: DilatedDecoder(CLASSES, LATENT, hidden=HIDDEN, depth=2, **options),
}
decoders = pytest.mark.parametrize("decoder", DECODERS)


def make(decoder, **options):
    torch.manual_seed(0)
    net = DECODERS[decoder](**options)
    encoder = DiagonalNormal(RecurrentEncoder(CLASSES, 2 * LATENT, hidden=5))
    symbol = Categorical(nn.Linear(HIDDEN, CLASSES))
    vae = SequenceVAE(StandardNormal(LATENT), net, symbol, encoder).double()
    with torch.no_grad():
        for p in vae.parameters():
            p.mul_(2)  # far from uniform
    return vae


def every_text():
    """All sequences of at most three symbols, each once."""
    texts = torch.tensor(list(product(range(CLASSES), repeat=STEPS)))
    ended = (texts == 0).int().cummax(1).values.bool()
    return texts[((texts == 0) | ~ended).all(1)]


# the model


@decoders
def test_probabilities_of_all_texts_sum_to_one(decoder):
    vae = make(decoder)
    x = every_text()
    assert len(x) == 1 + 3 + 9 + 27
    for z in torch.randn(2, LATENT, dtype=torch.float64):
        log_prob = vae.likelihood(x, z.expand(len(x), -1)).log_prob(x)
        assert log_prob.exp().sum().item() == pytest.approx(1, abs=1e-9)


@decoders
def test_generated_texts_have_their_probabilities(decoder):
    vae, n = make(decoder).eval(), 20_000
    x = every_text()
    z = torch.tensor([0.5, -1.0], dtype=torch.float64)
    p = vae.likelihood(x, z.expand(len(x), -1)).log_prob(x).exp()
    torch.manual_seed(1)
    drawn = vae.generate(z.expand(n, -1), STEPS)
    counts = (drawn.unsqueeze(1) == x).all(-1).sum(0)
    assert counts.sum() == n
    error = (p * (1 - p) / n).sqrt()
    assert ((counts / n - p).abs() < 4.5 * error + 1 / n).all()


@decoders
def test_greedy_takes_the_most_probable_symbol(decoder):
    vae = make(decoder).eval()
    z = torch.randn(5, LATENT, dtype=torch.float64)
    x = vae.generate(z, STEPS, greedy=True)
    best = vae.symbol(vae.decoder(x, z)).mode
    before = torch.cat([torch.ones(5, 1), x[:, :-1]], 1).cummin(1).values != 0
    assert torch.equal(x, best * before)


@decoders
def test_no_step_sees_itself_or_its_future(decoder):
    net = make(decoder).decoder
    x = torch.tensor([[1, 2, 3, 1, 2, 3]])
    z = torch.zeros(1, LATENT, dtype=torch.float64)
    h = net(x, z)
    for t in range(6):
        other = x.clone()
        other[0, t] = 4 - x[0, t] if x[0, t] != 2 else 1
        changed = (net(other, z) != h).any(-1)[0]
        assert not changed[: t + 1].any()
        assert t == 5 or changed[t + 1]
    assert (net(x, z + 1) != h).any(-1).all()


def test_language_model_is_a_decoder_without_latents():
    torch.manual_seed(0)
    decoder = RecurrentDecoder(CLASSES, 0, hidden=HIDDEN)
    vae = SequenceVAE(StandardNormal(1), decoder, Categorical(nn.Linear(HIDDEN, CLASSES)), None)
    x = every_text()

    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", vae.likelihood(x, torch.zeros(len(x), 0)), obs=x)

    svi = SVI(model, lambda x: None, torch.optim.SGD(vae.parameters(), 0.0), loss=Trace_ELBO())
    log_prob = vae.likelihood(x, torch.zeros(len(x), 0)).log_prob(x)
    assert svi.step(x).item() == pytest.approx(-log_prob.sum().item(), rel=1e-5)
    assert log_prob.exp().sum().item() == pytest.approx(1, abs=1e-5)


# networks


def test_encoder_stops_at_the_end():
    encoder = make("recurrent").encoder
    x = torch.tensor([[2, 1, 0, 3, 3], [2, 1, 0, 0, 0]])
    both = encoder(x).mean
    assert torch.equal(both[0], both[1])
    torch.testing.assert_close(encoder(x[:1, :3]).mean, both[:1])
    for other in ([[2, 1, 3, 0]], [[1, 1, 0]]):
        assert (encoder(torch.tensor(other)).mean - both[:1]).abs().min() > 1e-3


@decoders
def test_word_dropout_is_of_training_alone(decoder):
    torch.manual_seed(0)
    net = DECODERS[decoder](word_dropout=0.5).eval()
    x, z = torch.full((4000, 2), 3), torch.zeros(4000, LATENT)
    assert len(net(x, z)[:, 1].unique(dim=0)) == 1
    dropped = net.train()(x, z)[:, 1]
    unknown = net.eval()(torch.ones_like(x), z)[:1, 1]
    share = (dropped - unknown).abs().amax(1).lt(1e-5).double().mean().item()
    assert share == pytest.approx(0.5, abs=4.5 * 0.5 / 4000**0.5)  # its standard error: 0.008
    assert len(dropped.round(decimals=4).unique(dim=0)) == 2


# very many classes


def adaptive(classes=12):
    torch.manual_seed(0)
    return AdaptiveCategorical(8, classes, cutoffs=[3, 7]).double()


def test_adaptive_categorical_is_a_distribution():
    p, h = adaptive(), torch.randn(2, 3, 8, dtype=torch.float64)
    values = torch.arange(12).view(-1, 1, 1)
    total = p(h).log_prob(values).exp().sum(0)
    torch.testing.assert_close(total, torch.ones(2, 3, dtype=torch.float64))
    assert torch.equal(p(h).mode, p(h).log_prob(values).argmax(0))


def test_adaptive_categorical_draws_with_its_probabilities():
    n = 20_000
    p = adaptive()(3 * torch.randn(2, 8, dtype=torch.float64))
    torch.manual_seed(1)
    draws = p.sample((n,))
    assert draws.shape == (n, 2)
    for b in range(2):
        share = draws[:, b].bincount(minlength=12) / n
        q = p.log_prob(torch.arange(12).view(-1, 1))[:, b].exp()
        assert ((share - q).abs() < 4.5 * (q * (1 - q) / n).sqrt() + 1 / n).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_adaptive_categorical_under_autocast(dtype):
    """Densities and their gradients are those of float32: rounded weights would change them."""
    p, h = adaptive().float(), torch.randn(12, 8).to(dtype).requires_grad_()
    x = torch.arange(12)
    plain = p(h.float()).log_prob(x)
    with torch.autocast("cpu", torch.bfloat16):
        low = p(h)
        rounded, mode, drawn = low.log_prob(x), low.mode, low.sample((3,))
    assert rounded.dtype == torch.float32
    assert drawn.shape == (3, 12)
    torch.testing.assert_close(rounded, plain)
    assert torch.equal(mode, p(h.float()).mode)
    torch.testing.assert_close(
        *(torch.autograd.grad(v.sum(), [*p.parameters()]) for v in (rounded, plain))
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_adaptive_categorical_in_another_precision(dtype):
    p, h = adaptive().to(dtype), torch.randn(12, 8).to(dtype)
    plain = p(h).log_prob(torch.arange(12))
    with torch.autocast("cpu", torch.bfloat16):
        low = p(h).log_prob(torch.arange(12))
    assert plain.dtype == low.dtype == dtype
    assert torch.equal(plain, low)


def test_adaptive_categorical_refuses_other_classes():
    p = adaptive()(torch.zeros(2, 8, dtype=torch.float64)).expand((5, 2))
    assert p.log_prob(torch.zeros(5, 2, dtype=torch.long)).shape == (5, 2)
    with pytest.raises(ValueError, match="support"):
        p.log_prob(torch.full((5, 2), 12))


# text


def test_vocabulary_numbers_by_frequency_and_back():
    texts = ["aab", "ac", "b", "a"]
    vocabulary = Vocabulary.of(texts, min_count=2)
    assert vocabulary.characters == "ab"
    assert len(vocabulary) == 4
    assert Vocabulary(json.loads(json.dumps(vocabulary.characters))) == vocabulary
    x = vocabulary.encode(texts, 3)
    assert x.tolist() == [[2, 2, 3], [2, 1, 0], [3, 0, 0], [2, 0, 0]]
    assert vocabulary.decode(x) == ["aab", "a□", "b", "a"]


@pytest.mark.parametrize("texts", [[], [""], ["a", "toolong"]])
def test_texts_of_other_lengths_are_refused(texts):
    with pytest.raises(ValueError, match="expected texts of 1 to 3 characters, got "):
        Vocabulary("ab").encode(texts, 3)


def test_sentences_are_there_without_a_file():
    texts = sentences(20, 60)
    assert len(texts) == len(set(texts)) > 100
    assert {len(text) for text in texts} <= set(range(20, 61))
    assert texts == sentences(20, 60)


def test_couplets_without_their_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="expected one couplet a line in"):
        couplets(tmp_path)


def test_couplets():
    if "PYRO_VAE_DATA" not in os.environ:
        pytest.skip("set PYRO_VAE_DATA to a folder with poems/couplets.txt")
    texts = couplets(os.environ["PYRO_VAE_DATA"])
    assert len(texts) == 154_878
    assert {len(text) for text in texts} == {10}
    assert len(Vocabulary.of(texts, 5)) == 5398 + 2


# the script


def test_script_trains_writes_and_goes_on(tmp_path, capsys):
    main = module("programs/sequence").main
    sizes = "--hidden 8 --embedding 4 --latent 2 --longest 40 --num-samples 3 --no-progress"
    args = [*sizes.split(), "--output-dir", str(tmp_path), "--decoder", "dilated"]
    args += ["--runs", "language model", "free bits"]
    main([*args, "--epochs", "1"])
    result = json.loads((tmp_path / "result.json").read_text())
    assert set(result) == {"test texts", "language model", "free bits"}
    vae = result["free bits"]
    assert 0 < vae["nats per character, K = 3"] <= vae["nats per character, bound"]
    texts = json.loads((tmp_path / "free_bits_texts.json").read_text())
    assert len(texts["samples"]) == 10
    assert len(texts["interpolation"]) == 7
    assert (tmp_path / "figures" / "training.png").stat().st_size > 0
    before = (tmp_path / "free_bits" / "metrics.csv").read_text()
    main([*args, "--epochs", "2"])
    assert (tmp_path / "free_bits" / "metrics.csv").read_text().startswith(before)
    capsys.readouterr()
    with pytest.raises(SystemExit, match="2"):
        main(["--data", "novels", "--output-dir", str(tmp_path / "other")])
    assert "expected data to be sentences or couplets, got novels" in capsys.readouterr().err
