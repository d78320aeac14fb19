"""Importance weights: per datum, whatever the batch, the chunks and the programs."""

import itertools
import math
import platform
import subprocess
import sys

import pyro
import pyro.distributions as dist
import pytest
import torch
from linear_gaussian import LinearGaussian
from programs import (
    PAIRS,
    PER_DATUM,
    PIXELS,
    SemiSupervised,
    binary,
    fixed_draws,
    labels,
    pair,
    plain_vae,
)
from pyro import poutine
from torch import nn

from pyro_vae import (
    VAE,
    Bernoulli,
    DiagonalNormal,
    StandardNormal,
    log_likelihood,
    log_weights,
    mlp,
)
from pyro_vae.evaluation import importance
from pyro_vae.evaluation.importance import Scorer, stream
from pyro_vae.programs.pair import Pair
from pyro_vae.programs.rows import candidates

CALLS = PER_DATUM | {"unlabelled": lambda: pair(SemiSupervised, binary(), None)}


def rows_of(args, rows):
    return [arg if arg is None else arg[rows] for arg in args]


class Recording(Scorer):
    """A scorer that remembers the guide's last draws, (K, B, ...) by site."""

    def __init__(self, model, guide):
        super().__init__(model, guide)
        sample = self.pair.sample

        def recorded(*arguments):
            drawn = sample(*arguments)
            self.values = drawn.values
            return drawn

        self.pair.sample = recorded


def draws_of(programs, num_samples):
    """Weights (K, B), and the latents they belong to."""
    scorer = Recording(programs.model, programs.guide)
    torch.manual_seed(0)
    weights = log_weights(
        programs.model, programs.guide, *programs.args, num_samples=num_samples, compile=scorer
    )
    return weights, scorer.values


@pytest.mark.parametrize("make", CALLS.values(), ids=CALLS)
def test_weights_agree_with_a_slow_loop_over_single_data_and_draws(make):
    programs = make()
    weights, latents = draws_of(programs, 6)
    by_hand = torch.empty_like(weights)
    with torch.no_grad(), pyro.get_param_store().scope():
        for k, b in itertools.product(*map(range, weights.shape)):
            z = {name: value[k, [b]] for name, value in latents.items()}
            datum = rows_of(programs.args, [b])
            guide = poutine.trace(fixed_draws(programs.guide, z)).get_trace(*datum)
            model = poutine.trace(poutine.condition(programs.model, data=z)).get_trace(*datum)
            by_hand[k, b] = model.log_prob_sum() - guide.log_prob_sum()
    torch.testing.assert_close(weights, by_hand, atol=1e-6, rtol=0)


@pytest.mark.parametrize("make", CALLS.values(), ids=CALLS)
def test_a_batch_does_not_depend_on_its_companions(make):
    """The weights of some of the data, at the draws they had beside the others."""
    programs = make()
    whole, latents = draws_of(programs, 4)
    programs_pair = Pair(programs.model, programs.guide)
    for rows in ([0], [5, 2], [3, 1, 4]):
        call, z = (rows_of(programs.args, rows), {}), {n: v[:, rows] for n, v in latents.items()}
        with programs_pair.looking():
            log_joint = sum(programs_pair.score_model(call, z, 4))
            part = log_joint - programs_pair.score_guide(call, z, 4)
        torch.testing.assert_close(part, whole[:, rows], atol=1e-6, rtol=0)


@pytest.mark.parametrize("num_samples", [1, 2, 25])
@pytest.mark.parametrize("make", CALLS.values(), ids=CALLS)
def test_any_chunk_size_gives_the_same(make, num_samples):
    programs = make()

    def run(function, chunk_bytes):
        torch.manual_seed(0)
        return function(
            programs.model,
            programs.guide,
            *programs.args,
            num_samples=num_samples,
            chunk_bytes=chunk_bytes,
        )

    weights = run(log_weights, 1 << 23)
    assert weights.shape == (num_samples, len(programs.args[0]))
    for chunk_bytes in (1, 1000, 8000):
        torch.testing.assert_close(run(log_weights, chunk_bytes), weights)
        torch.testing.assert_close(
            run(log_likelihood, chunk_bytes), weights.logsumexp(0) - math.log(num_samples)
        )


def test_many_blocks_of_the_guide(monkeypatch):
    """More draws than one pass of the guide makes: more data than it takes, and more samples than
    it takes."""
    monkeypatch.setattr(importance, "GUIDE_DRAWS", 10)
    truth = LinearGaussian()
    x = truth.data(23)
    module = truth.vae()
    for num_samples in (1, 3, 10, 25):
        expected = truth.log_likelihood(x)
        weights = log_weights(module.model, module.guide, x, num_samples=num_samples)
        torch.testing.assert_close(weights, expected.expand(num_samples, -1))
        torch.testing.assert_close(
            log_likelihood(module.model, module.guide, x, num_samples=num_samples), expected
        )
        blocks = list(stream(Scorer(module.model, module.guide), ((x,), {}), num_samples, 4))
        seen = torch.zeros(num_samples, len(x))
        for block in blocks:
            assert block.log_weight.numel() <= 10
            seen[block.samples, block.rows] += 1
        assert (seen == 1).all()


def watch(net):
    """The number of rows of each call of a network, as it goes."""
    rows = []
    net.register_forward_hook(lambda module, args, out: rows.append(args[0].shape[:-1].numel()))
    return rows


def run_after_looking(module, net, x, **options):
    """The rows that a network sees at each of its calls, where the structure is known already."""
    scorer, rows = Scorer(module.model, module.guide), watch(net)
    for _ in range(2):
        rows.clear()
        log_likelihood(module.model, module.guide, x, compile=scorer, **options)
    return rows


@pytest.mark.parametrize("num_samples", [1, 100, 1000])
def test_encoder_sees_each_datum_once_whatever_k(num_samples):
    module, x = plain_vae(), binary(9)
    rows = run_after_looking(module, module.encoder.net, x, num_samples=num_samples)
    assert sum(rows) == len(x)


def test_encoder_sees_each_datum_once_per_block(monkeypatch):
    monkeypatch.setattr(importance, "GUIDE_DRAWS", 50)
    module, x = plain_vae(), binary(4)
    rows = run_after_looking(module, module.encoder.net, x, num_samples=120)
    assert sum(rows) == len(x) * math.ceil(120 / 50)


@pytest.mark.parametrize(("limit", "value"), [("GUIDE_ROWS", 5), ("GUIDE_BYTES", 5 * 16 * 8)])
@pytest.mark.parametrize("num_samples", [1, 3])
def test_a_pass_of_the_guide_has_not_too_many_data(monkeypatch, limit, value, num_samples):
    """A row's largest tensor is a hidden layer of 16 numbers in float64."""
    monkeypatch.setattr(importance, limit, value)
    module, x = plain_vae(), binary(12)
    rows = run_after_looking(module, module.encoder.net, x, num_samples=num_samples)
    assert rows == [5, 5, 2]


@pytest.mark.parametrize("width", [1, 5, 32, 300])
@pytest.mark.parametrize("num_samples", [3, 40])
def test_decoder_never_sees_more_rows_than_the_chunk(num_samples, width):
    """A row's largest tensor is a hidden layer of 16 numbers in float64."""
    module, x = plain_vae(), binary(11)
    rows = run_after_looking(
        module, module.decoder.net, x, num_samples=num_samples, chunk_bytes=width * 16 * 8
    )
    assert max(rows) <= width
    assert sum(rows) == num_samples * len(x)


def test_one_sample_is_one_draw_of_the_elbo():
    module, x = plain_vae(), binary()
    torch.manual_seed(0)
    value = log_likelihood(module.model, module.guide, x, num_samples=1)
    torch.manual_seed(0)
    torch.testing.assert_close(value, log_weights(module.model, module.guide, x, num_samples=1)[0])
    assert value.shape == (len(x),)


def test_the_estimate_grows_with_k_and_stays_below_the_truth():
    """In expectation; the means over 400 data have standard errors below 0.05 nat."""
    truth = LinearGaussian()
    x = truth.data(400)
    module = truth.vae(truth.wrong_encoder(spread=1.8))
    torch.manual_seed(0)
    means = [
        float(log_likelihood(module.model, module.guide, x, num_samples=k).mean())
        for k in (1, 10, 100, 1000)
    ]
    assert means == sorted(means)
    assert means[-1] < float(truth.log_likelihood(x).mean()) + 0.15
    assert means[0] < means[-1] - 0.5


def test_scales_and_masks_of_the_data():
    """poutine.scale is no part of p(x): a weight is a density. A mask is: what it hides does not
    count."""
    programs, scaled, masked = PAIRS["vae"](), PAIRS["scaled"](), PAIRS["masked"]()

    def run(each, guide=None):
        torch.manual_seed(0)
        return log_weights(each.model, guide or each.guide, *each.args, num_samples=5)

    torch.testing.assert_close(run(scaled), run(programs))
    hide = (
        poutine.mask(programs.model, torch.tensor(False)),
        poutine.mask(programs.guide, torch.tensor(False)),
    )
    assert (log_weights(*hide, *programs.args, num_samples=3) == 0).all()
    assert masked.args[0].shape == programs.args[0].shape


def test_keyword_arguments_and_none():
    programs = pair(SemiSupervised, binary(), labels())
    torch.manual_seed(0)
    positional = log_weights(programs.model, programs.guide, *programs.args, num_samples=3)
    torch.manual_seed(0)
    named = log_weights(
        programs.model, programs.guide, programs.args[0], ys=programs.args[1], num_samples=3
    )
    torch.testing.assert_close(named, positional)
    assert (
        log_weights(programs.model, programs.guide, binary(), ys=None, num_samples=3).shape
        == positional.shape
    )


def test_discrete_latents_against_enumeration():
    """log p(x, y) summed over y is log p(x): with a labelled call for each class, against the
    unlabelled one."""
    programs = pair(SemiSupervised, binary(), None)
    x, classes = binary(), SemiSupervised.CLASSES
    torch.manual_seed(0)
    joint = [
        log_likelihood(
            programs.model,
            programs.guide,
            x,
            torch.eye(classes).double()[y].expand(len(x), -1),
            num_samples=4000,
        )
        for y in range(classes)
    ]
    unlabelled = log_likelihood(programs.model, programs.guide, x, None, num_samples=4000)
    torch.testing.assert_close(
        unlabelled, torch.stack(joint).logsumexp(0), atol=0.05, rtol=0
    )  # standard errors below 0.01


def test_modules_are_used_in_eval_mode_and_left_in_theirs():
    module = plain_vae()
    module.decoder.net.append(nn.BatchNorm1d(PIXELS).double())
    module.decoder.net.append(nn.Dropout(0.9))
    before = {name: value.clone() for name, value in module.state_dict().items()}
    module.encoder.eval()
    torch.manual_seed(0)
    first = log_likelihood(module.model, module.guide, binary(), num_samples=20)
    torch.manual_seed(0)
    torch.testing.assert_close(
        log_likelihood(module.model, module.guide, binary(), num_samples=20), first
    )
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    assert module.decoder.training
    assert not module.encoder.training
    assert not first.requires_grad


def without_plate(module):
    def guide(x):
        pyro.sample("z", module.encoder(x))

    return guide


def misspelt(module):
    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("Z", module.encoder(x))

    return guide


def programs_of(name):
    programs = PAIRS[name]()
    return {"model": programs.model, "guide": programs.guide}


def bad(change):
    """A VAE's programs and data, changed."""
    module = plain_vae()
    call = {
        "model": module.model,
        "guide": module.guide,
        "args": (binary(),),
        "num_samples": 3,
    } | change(module)
    return lambda: log_weights(call.pop("model"), call.pop("guide"), *call.pop("args"), **call)


REFUSED = {
    "no samples": (lambda m: {"num_samples": 0}, "num_samples"),
    "negative samples": (lambda m: {"num_samples": -5}, "num_samples"),
    "no chunk": (lambda m: {"chunk_bytes": 0}, "chunk_bytes"),
    "guide without a plate": (
        lambda m: {"guide": without_plate(m)},
        "both programs to sample 'z' in plate 'data' .* the guide's outside",
    ),
    "misspelt site": (lambda m: {"guide": misspelt(m)}, r"missing \['z'\], unknown \['Z'\]"),
    "no plates": (lambda m: programs_of("no plate"), r"in the model's shape \(3,\), got \(2, 3\)"),
    "global latent": (
        lambda m: programs_of("global latent"),
        r"a plate with one row per datum .* got global sites \['w'\]",
    ),
    "fixed plate": (
        lambda m: {
            "model": lambda x: m.model(x.expand(7, -1)),
            "guide": lambda x: m.guide(x.expand(7, -1)),
        },
        "programs that do not take two rows of their arguments",
    ),
    "no tensors": (lambda m: {"args": ()}, "one row per datum"),
    "no data": (lambda m: {"args": (binary()[:0],)}, "one row per datum"),
    "uneven lengths": (
        lambda m: programs_of("labelled") | {"args": (binary(), labels(3))},
        "programs that do not take two rows of their arguments",
    ),
    "grey data": (lambda m: {"args": (binary() * 0.5,)}, "support"),
    "NaN": (lambda m: {"args": (binary() * math.nan,)}, "nan"),
}


@pytest.mark.parametrize(("change", "message"), REFUSED.values(), ids=REFUSED)
def test_refused(change, message):
    with pytest.raises(ValueError, match=message):
        bad(change)()


def test_rows_of_arguments():
    """The length that most arguments have, then the largest."""
    x, y, table = torch.zeros(5, 2), torch.zeros(5), torch.zeros(9, 2)
    call = ((x, None, 3.0, torch.tensor(1.0), table), {"y": y})
    first, second = candidates(call)
    assert (first.size, second.size) == (5, 9)
    args, kwargs = first.take(call, slice(1, 3))
    assert args[0].shape == (2, 2)
    assert args[1:3] == (None, 3.0)
    assert args[4] is table
    assert kwargs["y"].shape == (2,)


def test_weights_that_are_no_numbers_are_refused(monkeypatch):
    """A NaN after the first draws, which alone are validated."""
    torch.manual_seed(0)
    vae = VAE(StandardNormal(2), Bernoulli(mlp(2, 8, 6)), DiagonalNormal(mlp(6, 8, 4)))
    honest = vae.decoder.forward

    def broken(z):
        logits = honest(z).base_dist.logits.clone()
        if len(z) > 12:  # more than where structure is looked for
            logits[-1] = torch.nan
        return dist.Bernoulli(logits=logits, validate_args=False).to_event(1)

    monkeypatch.setattr(vae.decoder, "forward", broken)
    with pytest.raises(ValueError, match="expected log weights that are numbers, got NaN"):
        log_likelihood(vae.model, vae.guide, torch.ones(3, 6), num_samples=50)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_freed_memory_serves_again():
    """Without keep_heap each of the twenty rounds meets 6,000 page faults."""
    code = """
import resource, torch
from pyro_vae.programs.heap import keep_heap
keep_heap()
before = 0
for _ in range(21):
    tensors = [torch.zeros(1 << 21) for _ in range(3)]
    del tensors
    before = before or resource.getrusage(resource.RUSAGE_SELF).ru_minflt
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 30_000
