"""The deep Markov model: against a linear chain in closed form; masks; chorales and MIDI."""

import json
import os

import pyro
import pytest
import torch
from running import module
from torch import nn

from pyro_vae import Bernoulli, DiagonalNormal, Normal, Trace_ELBO, evaluate, mlp
from pyro_vae.data import Buckets, load_chorales, rolls, save_midi, scales
from pyro_vae.families import IAF
from pyro_vae.models import DeepMarkovModel
from pyro_vae.nets import FutureGRU, GatedTransition
from pyro_vae.plots import compared, piano_rolls

DIM, KEYS, HIDDEN = 2, 3, 5
LENGTHS = torch.tensor([4, 1, 3])


class Linear(nn.Module):
    """A linear mean, and a fixed scale: (loc, 2 log scale)."""

    def __init__(self, scale):
        super().__init__()
        self.mean = nn.Linear(DIM, DIM, bias=False)
        self.log_variance = 2 * torch.tensor(scale).log()

    def forward(self, z):
        loc = self.mean(z)
        return torch.cat([loc, self.log_variance.expand_as(loc)], -1)


def make(transition=None, emission=None, posterior=None):
    torch.manual_seed(0)
    return DeepMarkovModel(
        DiagonalNormal(transition or GatedTransition(DIM, HIDDEN)),
        emission or Bernoulli(mlp(DIM, HIDDEN, KEYS)),
        FutureGRU(KEYS, HIDDEN),
        posterior or DiagonalNormal(nn.Linear(HIDDEN, 2 * DIM)),
        dim=DIM,
        hidden=HIDDEN,
    ).double()


def chain_evidence(dmm, x, scales):
    """log p(x) of a linear chain: x = blocks of W z_t, z_t = A z_{t-1} + noise, z_0 given."""
    A, W, b = dmm.transition.net.mean.weight, dmm.emission.net.weight, dmm.emission.net.bias
    T = len(x)
    loc = torch.cat([A.matrix_power(t + 1) @ dmm.first_prior for t in range(T)])
    L = torch.zeros(T * DIM, T * DIM, dtype=torch.float64)
    for t in range(T):
        for s in range(t + 1):
            L[t * DIM : (t + 1) * DIM, s * DIM : (s + 1) * DIM] = A.matrix_power(t - s)
    W = torch.block_diag(*[W] * T)
    covariance = scales[0] ** 2 * W @ L @ L.T @ W.T + scales[1] ** 2 * torch.eye(
        T * KEYS, dtype=torch.float64
    )
    p = torch.distributions.MultivariateNormal(W @ loc + b.repeat(T), covariance)
    return p.log_prob(x.flatten())


@pytest.mark.parametrize("posterior", ["normal", "flow"])
def test_log_likelihood_of_a_linear_chain(posterior):
    torch.manual_seed(1)
    flow = IAF.over(lambda outputs: nn.Linear(HIDDEN, outputs), DIM, depth=1, hidden=(4,))
    emission = Normal(nn.Linear(DIM, KEYS), scale=2.0)
    dmm = make(Linear(0.8), emission, flow if posterior == "flow" else None)
    with torch.no_grad():
        dmm.first_prior.copy_(torch.tensor([2.0, -2.0]))
        for p in flow.layers.parameters():
            p.mul_(0.3)  # a flow far from the posterior has weights without a variance
    x = torch.randn(3, 4, KEYS, dtype=torch.float64)
    exact = torch.stack([chain_evidence(dmm, x[i, :n], (0.8, 2.0)) for i, n in enumerate(LENGTHS)])
    pyro.set_rng_seed(1)
    ours = evaluate(dmm.model, dmm.guide, x, LENGTHS, num_samples=20_000, kl_draws=0)
    assert ours.standard_error.max() < 0.06
    assert ((ours.log_px - exact).abs() < 4.5 * ours.standard_error).all()


@pytest.mark.parametrize("posterior", ["normal", "flow"])
def test_what_follows_the_end_does_not_count(posterior):
    flow = IAF.over(lambda outputs: nn.Linear(HIDDEN, outputs), DIM, depth=1, hidden=(4,))
    dmm = make(posterior=flow if posterior == "flow" else None)
    x = torch.rand(3, 4, KEYS, dtype=torch.float64).round()
    after = torch.arange(4) >= LENGTHS.unsqueeze(1)
    other = torch.where(after.unsqueeze(-1), 1 - x, x)
    losses = []
    for data in (x, other):
        pyro.set_rng_seed(2)
        losses.append(Trace_ELBO().estimate(dmm.model, dmm.guide, data, LENGTHS))
    assert losses[0].loss.item() == pytest.approx(losses[1].loss.item(), rel=1e-12)
    assert losses[0].kl.item() == pytest.approx(losses[1].kl.item(), rel=1e-12)
    other[0, 3] = 1 - other[0, 3]  # the last step that counts
    pyro.set_rng_seed(2)
    changed = Trace_ELBO().estimate(dmm.model, dmm.guide, other, LENGTHS).loss.item()
    assert abs(changed - losses[0].loss.item()) > 1e-3


# networks


def test_future_gru_sees_the_rest_of_the_sequence_alone():
    torch.manual_seed(0)
    net, x = FutureGRU(KEYS, HIDDEN), torch.randn(1, 5, KEYS)
    lengths = torch.tensor([4])
    h = net(x, lengths)
    for t in range(5):
        other = x.clone()
        other[0, t] += 1
        changed = (net(other, lengths) != h).any(-1)[0]
        assert changed[:4].tolist() == [t < 4 and step <= t for step in range(4)]


def test_gated_transition_has_the_formula_of_its_paper():
    torch.manual_seed(0)
    net, z = GatedTransition(3, HIDDEN).double(), torch.randn(7, 3, dtype=torch.float64)
    assert torch.equal(net.linear(z), z)
    a, b = (layer.squeeze(0) for layer in net.first.weight.view(2, 1, HIDDEN, 3))
    gate = torch.sigmoid(net.gate(torch.relu(z @ a.T + net.first.bias[:HIDDEN])))
    h = net.proposed(torch.relu(z @ b.T + net.first.bias[HIDDEN:]))
    scale = torch.nn.functional.softplus(net.scale(torch.relu(h))) + 1e-4
    expected = torch.cat([(1 - gate) * z + gate * h, 2 * scale.log()], -1)
    torch.testing.assert_close(net(z), expected)


def test_generated_sequences():
    torch.manual_seed(0)
    x = make().generate(4, 7)
    assert x.shape == (4, 7, KEYS)
    assert set(x.unique().tolist()) == {0.0, 1.0}


# chorales


def test_rolls_hold_the_notes():
    x, lengths = rolls([[[21, 108], []], [[60]]])
    assert lengths.tolist() == [2, 1]
    assert x.nonzero().tolist() == [[0, 0, 0], [0, 0, 87], [1, 0, 39]]


@pytest.mark.parametrize(
    ("songs", "sentence"),
    [
        ([], "expected sequences of at least one step"),
        ([[[60]], []], "expected sequences of at least one step"),
        ([[[20]]], "expected MIDI numbers of 21 to 108, got"),
        ([[[60, 109]]], "expected MIDI numbers of 21 to 108, got"),
    ],
)
def test_other_songs_are_refused(songs, sentence):
    with pytest.raises(ValueError, match=sentence):
        rolls(songs)


def test_buckets_hold_every_sequence_once():
    sequences = scales(17)
    buckets = Buckets(sequences, 4)
    parts = [buckets.batch(torch.tensor([i])) for i in range(len(buckets))]
    assert [len(part.x) for part in parts] == [4, 4, 4, 4, 1]
    assert torch.equal(torch.cat([p.lengths for p in parts]), sequences.lengths.sort().values)
    assert sum(p.x.sum() for p in parts) == sequences.x.sum()
    assert all(p.x.shape[1] == p.lengths.max() for p in parts)


def test_chorales_without_their_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="expected chorales in"):
        load_chorales(tmp_path)


def test_chorales():
    if "PYRO_VAE_DATA" not in os.environ:
        pytest.skip("set PYRO_VAE_DATA to a folder with jsb/jsb-chorales-quarter.json")
    parts = load_chorales(os.environ["PYRO_VAE_DATA"])
    assert [len(part.x) for part in parts] == [229, 76, 77]
    for part in parts:
        after = torch.arange(part.x.shape[1]) >= part.lengths.unsqueeze(1)
        assert part.x[after].sum() == 0
        notes = part.x.sum((0, 1)).nonzero().flatten() + 21
        assert 43 <= notes.min() <= notes.max() <= 96


def test_midi_holds_the_roll(tmp_path):
    mido = pytest.importorskip("mido", reason="mido is not installed")
    roll = rolls([[[60, 64], [60, 67], [], [60]]]).x[0]
    save_midi(tmp_path / "song.mid", roll)
    file = mido.MidiFile(tmp_path / "song.mid")
    again, now, down = torch.zeros_like(roll), 0, {}
    for message in file.tracks[0]:
        now += message.time
        if message.type == "note_on":
            down[message.note] = now
        elif message.type == "note_off":
            steps = slice(down[message.note] // file.ticks_per_beat, now // file.ticks_per_beat)
            again[steps, message.note - 21] = 1
    assert torch.equal(again, roll)


# figures


def test_other_figures_are_refused():
    with pytest.raises(ValueError, match="expected piano rolls of shape"):
        piano_rolls({"a": torch.zeros(3)})
    with pytest.raises(ValueError, match="against epoch or seconds, got 0"):
        compared({})


# the script


def test_script_trains_writes_and_goes_on(tmp_path, capsys):
    pytest.importorskip("mido", reason="mido is not installed")
    main = module("programs/deep_markov").main
    sizes = "--data scales --layers 1 --dim 2 --hidden 6 --num-samples 3 --length 4 --no-progress"
    args = [*sizes.split(), "--output-dir", str(tmp_path)]
    main([*args, "--epochs", "1"])
    result = json.loads((tmp_path / "result.json").read_text())
    assert set(result) == {"test sequences", "1 IAF layers"}
    flow = result["1 IAF layers"]
    assert flow["-log p(x) per step, K = 3"] <= flow["-ELBO per step"]
    names = {path.name for path in tmp_path.glob("*.mid")}
    assert names == {"of_the_test_set.mid", "generated_1_IAF_layers.mid"}
    pictures = {path.name for path in (tmp_path / "figures").iterdir()}
    assert pictures == {"training.png", "seconds.png", "chorales.png"}
    before = (tmp_path / "iaf_1" / "metrics.csv").read_text()
    main([*args, "--epochs", "2"])
    assert (tmp_path / "iaf_1" / "metrics.csv").read_text().startswith(before)
