"""M2 and M1 + M2: the auxiliary term, the layers of the stack, and the script."""

import json
import shutil
import sys

import pytest
import torch
from running import script
from torch import nn

from pyro_vae import VAE, Bernoulli, DiagonalNormal, StandardNormal, Trace_ELBO, log_likelihood, mlp
from pyro_vae.data import Labelled, NormalDraws, as_data, balanced
from pyro_vae.families import OneHotCategorical, UniformOneHot
from pyro_vae.models import M2, StackedM2

CLASSES, LATENT, PIXELS = 3, 2, 6
main = script("programs/m2")
TINY = (
    *("--data", "digits", "--hidden", 8, "--m1-hidden", 8, "--m1-latents", 2, "--latents", 2),
    *(
        "--num-labels",
        20,
        "--labelled-size",
        10,
        "--batch-size",
        400,
        "--no-compile",
        "--no-progress",
    ),
)


def m2_of(auxiliary=0.0):
    torch.manual_seed(0)
    classifier, encoder = mlp(PIXELS, 8, CLASSES), mlp(PIXELS + CLASSES, 8, 2 * LATENT)
    return M2(
        UniformOneHot(CLASSES),
        StandardNormal(LATENT),
        Bernoulli(mlp(CLASSES + LATENT, 8, PIXELS)),
        OneHotCategorical(classifier),
        DiagonalNormal(encoder),
        auxiliary,
    )


@pytest.fixture
def data():
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(5, PIXELS, generator=generator).round()
    return x, torch.eye(CLASSES)[[0, 1, 2, 0, 1]]


def loss(m2, *args):
    torch.manual_seed(1)
    return Trace_ELBO().estimate(m2.model, m2.guide, *args).loss


def test_the_auxiliary_term_is_the_cross_entropy_of_the_labels(data):
    x, y = data
    plain, extended = m2_of(), m2_of(auxiliary=2.5)
    cross_entropy = nn.functional.cross_entropy(extended.encoder_y.net(x), y, reduction="sum")
    torch.testing.assert_close(loss(extended, x, y), loss(plain, x, y) + 2.5 * cross_entropy)
    loss(extended, x, y).backward()
    (expected,) = torch.autograd.grad(2.5 * cross_entropy, extended.encoder_y.net[-1].bias)
    torch.testing.assert_close(extended.encoder_y.net[-1].bias.grad, expected)


def test_the_auxiliary_term_is_for_labels_only_and_no_part_of_log_px(data):
    x, y = data
    torch.testing.assert_close(loss(m2_of(2.5), x), loss(m2_of(), x))
    values = []
    for m2 in (m2_of(), m2_of(2.5)):
        torch.manual_seed(2)
        values.append(log_likelihood(m2.model, m2.guide, x, y, num_samples=7))
    torch.testing.assert_close(*values)


def test_log_px_is_the_sum_over_the_labels(data):
    """log p(x) = log sum_y p(x, y); K = 20000, five standard errors below 0.02 nats."""
    m2, (x, _) = m2_of(), data
    torch.manual_seed(3)
    given = [
        log_likelihood(m2.model, m2.guide, x, y.expand(len(x), -1), num_samples=20_000)
        for y in torch.eye(CLASSES)
    ]
    summed = log_likelihood(m2.model, m2.guide, x, num_samples=20_000)
    torch.testing.assert_close(summed, torch.stack(given).logsumexp(0), atol=0.02, rtol=0)


def test_the_stack_with_the_prior_of_m1_is_m1(data):
    """Where p(z1 | y, z2) = N(0, I) for every y and z2, log p(x) is that of the VAE M1."""
    (x, _), m2 = data, m2_of()
    decoder, encoder = Bernoulli(mlp(LATENT, 8, PIXELS)), DiagonalNormal(mlp(PIXELS, 8, 2 * LATENT))
    middle = nn.Linear(CLASSES + LATENT, 2 * LATENT)
    nn.init.zeros_(middle.weight), nn.init.zeros_(middle.bias)
    classifier, encoder_z2 = mlp(LATENT, 8, CLASSES), mlp(LATENT + CLASSES, 8, 2 * LATENT)
    stack = StackedM2(
        *(m2.prior_y, m2.prior_z, DiagonalNormal(middle), decoder, encoder),
        *(OneHotCategorical(classifier), DiagonalNormal(encoder_z2)),
    )
    vae = VAE(StandardNormal(LATENT), decoder, encoder)
    torch.manual_seed(4)
    ours = log_likelihood(stack.model, stack.guide, x, num_samples=20_000)
    theirs = log_likelihood(vae.model, vae.guide, x, num_samples=20_000)
    torch.testing.assert_close(ours, theirs, atol=0.03, rtol=0)
    assert stack.generate(torch.eye(CLASSES)).shape == (CLASSES, PIXELS)


def test_classifies_by_the_most_probable_class(data):
    m2, (x, _) = m2_of(), data
    assert m2.classify(x).equal(m2.encoder_y.net(x).argmax(-1))
    with pytest.raises(ValueError, match="expected auxiliary of at least 0, got -1"):
        m2_of(auxiliary=-1)


def test_labels_are_balanced_and_differ_by_seed():
    labels = torch.arange(1000) % 10
    first, second = balanced(labels, 50, 0), balanced(labels, 50, 1)
    assert labels[first].bincount().tolist() == [5] * 10
    assert len(first.unique()) == 50
    assert not first.equal(second)
    for number in (0, 55, 1010):
        with pytest.raises(ValueError, match="expected a multiple of 10 labels, at most 100"):
            balanced(labels, number, 0)


def test_draws_have_their_mean_and_scale_and_differ():
    """20000 draws: the standard error of a mean is 0.007 * scale."""
    torch.manual_seed(5)
    data = NormalDraws(torch.tensor([[1.0, 2.0]]), torch.tensor([[0.1, 3.0]]))
    z = data.batch(torch.zeros(20_000, dtype=torch.long))
    torch.testing.assert_close(z.mean(0), data.loc[0], atol=0.1, rtol=0)
    torch.testing.assert_close(z.std(0), data.scale[0], atol=0, rtol=0.03)
    with pytest.raises(ValueError, match="expected loc and scale of one shape"):
        NormalDraws(torch.zeros(2, 1), torch.ones(2, 2))


def test_the_start_trains_the_classifier_first_and_then_the_others_on_its_guesses():
    """Labels alone move q(y | x); guesses move the other networks and leave q(y | x) as it is."""
    module = sys.modules["scripts_programs/m2"]
    options = module.Options(batch_size=20, compile=False, guess_epochs=1)
    torch.manual_seed(6)
    x = torch.rand(60, PIXELS).round()
    labels = x[:, 0].long() + x[:, 1].long()
    y, m2 = nn.functional.one_hot(labels, CLASSES).float(), m2_of(auxiliary=50)
    data = Labelled(as_data(x), torch.arange(60), y)
    before, decoder = m2.encoder_y.net[0].weight.clone(), m2.decoder.net[0].weight.clone()
    module.start(m2, options, data, 0)
    assert m2.encoder_y.net[0].weight.equal(before)
    assert not m2.decoder.net[0].weight.equal(decoder)
    module.start(m2, options, data, 600)
    assert (m2.classify(x) == labels).float().mean() > 0.9


@pytest.mark.parametrize("kind", ["--no-stacked", "--stacked"])
def test_the_script_learns_and_a_run_goes_on(tmp_path, kind, capsys):
    def run(name, epochs):
        common = ("--epochs", epochs, "--m1-epochs", 1, "--draws", 0, 1)
        main(*TINY, *common, kind, "--output-dir", tmp_path / name)
        return json.loads((tmp_path / name / "result.json").read_text())

    run("short", 1)
    resumed, whole = run("short", 2), run("whole", 2)
    assert resumed == whole
    assert [len(scores) for scores in whole["by_epoch"]] == [2, 2]
    assert "published" in capsys.readouterr().out
    assert (tmp_path / "whole" / "figures" / "by_class.png").is_file()


def test_each_size_of_z_in_turn_and_a_run_that_stopped_between_them_goes_on(tmp_path):
    """The classifier goes on: 2 sizes of z, 1 epoch each, from a copy without the second size."""
    options = ("--latents", 1, 2, "--layers", 2, "--precision", "bf16", "--label-steps", 2)
    options += ("--epochs", 1, "--m1-epochs", 1, "--guess-epochs", 1, "--draws", 0)
    options += ("--average", 0.9, "--m1-beta", 0.5)

    def run(name):
        main(*TINY, *options, "--output-dir", tmp_path / name)
        return json.loads((tmp_path / name / "result.json").read_text())

    whole = run("whole")
    assert [len(scores) for scores in whole["by_epoch"]] == [2]
    shutil.copytree(tmp_path / "whole", tmp_path / "again")
    shutil.rmtree(tmp_path / "again" / "labels-0" / "z2")
    assert run("again") == whole
