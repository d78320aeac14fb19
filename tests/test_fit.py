"""The training loop: true records, exact resume, honest failure, nothing left behind."""

import csv
import gc
import itertools
import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pyro
import pyro.distributions as dist
import pytest
import torch
from interrupted import Bits
from linear_gaussian import LinearGaussian
from test_checkpoint import equal
from torch import Tensor, nn
from torch.optim import lr_scheduler

from pyro_vae import (
    SVI,
    VAE,
    Bernoulli,
    DiagonalNormal,
    StandardNormal,
    Trace_ELBO,
    TraceMeanField_ELBO,
    linear,
    mlp,
)
from pyro_vae.data import Images
from pyro_vae.data.adapters import as_data
from pyro_vae.evaluation.latents import active_units
from pyro_vae.objectives.objective import Estimate
from pyro_vae.training.checkpoint import load_checkpoint
from pyro_vae.training.epoch import (
    NonFinite,
    _checked,
    epoch_batches,
    steps,
    take_all,
    train_epoch,
    validate,
)
from pyro_vae.training.failure import reproduce
from pyro_vae.training.loop import fit, iter_epochs


class Rows:
    """Given data; remembers which were asked for."""

    def __init__(self, *columns: Tensor) -> None:
        self.columns, self.visits = columns, []

    def __len__(self) -> int:
        return len(self.columns[0])

    def batch(self, indices: Tensor) -> Tensor | tuple[Tensor, ...]:
        self.visits.append(indices.clone())
        batch = tuple(column[indices] for column in self.columns)
        return batch if len(batch) > 1 else batch[0]


OPTIMISERS = {
    "Adam": lambda parameters: torch.optim.Adam(parameters, lr=3e-3),
    "fused AdamW": lambda parameters: torch.optim.AdamW(parameters, lr=3e-3, fused=True),
    "Adagrad": lambda parameters: torch.optim.Adagrad(parameters, lr=1e-2),
    "SGD with momentum": lambda parameters: torch.optim.SGD(parameters, lr=1e-4, momentum=0.9),
}

SCHEDULERS = {
    "none": lambda optim: None,
    "step": lambda optim: lr_scheduler.StepLR(optim, 2, 0.5),
    "milestones": lambda optim: lr_scheduler.MultiStepLR(optim, [1, 3], 0.5),
    "cosine": lambda optim: lr_scheduler.CosineAnnealingLR(optim, 4),
    "lambda": lambda optim: lr_scheduler.LambdaLR(optim, lambda epoch: 1 / (1 + epoch)),
    "plateau": lambda optim: lr_scheduler.ReduceLROnPlateau(
        optim, patience=0, threshold=100.0, threshold_mode="abs"
    ),
    "sequence": lambda optim: lr_scheduler.SequentialLR(
        optim,
        [lr_scheduler.ConstantLR(optim, 0.1), lr_scheduler.ExponentialLR(optim, 0.9)],
        milestones=[2],
    ),
}


RESUMED = [("Adam", name) for name in SCHEDULERS]
RESUMED += [(name, "none") for name in OPTIMISERS if name != "Adam"]
"""Optimisers and schedulers do not interact: each is stored and restored on its own."""

CALLER = itertools.count(1)
"""The caller's random state is never the same again: no result may depend on it."""


def make(optimiser="Adam", scheduler="none", objective=None):
    """An SVI with batch normalisation and annealing, and its schedule; always the same weights."""
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Linear(64, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 4))
    vae = VAE(StandardNormal(2), Bernoulli(mlp(2, 8, 64)), DiagonalNormal(encoder))
    optim = OPTIMISERS[optimiser](vae.parameters())
    torch.manual_seed(next(CALLER))
    return SVI(vae.model, vae.guide, optim, objective or Trace_ELBO(beta=linear(10))), SCHEDULERS[
        scheduler
    ](optim)


OPTIONS = {"batch_size": 16, "progress": False}
TRAIN, VALIDATION = Bits(40), Bits(20, seed=1)


def run(epochs=3, folder=None, *, resume=False, make_options=(), **options):
    svi, scheduler = make(*make_options)
    options = OPTIONS | {"scheduler": scheduler} | options
    return svi, list(
        iter_epochs(svi, TRAIN, VALIDATION, epochs=epochs, folder=folder, resume=resume, **options)
    )


def weights(svi):
    return {name: value.clone() for name, value in svi.model.__self__.state_dict().items()}


def timeless(folder, name="last.pt"):
    """A checkpoint but for the wall-clock time."""
    state = load_checkpoint(folder / name)
    return state | {"history": [record | {"seconds": 0} for record in state["history"]]}


# Records


def test_records_on_the_linear_gaussian():
    truth = LinearGaussian()
    vae, train, validation = truth.vae(), Rows(truth.data(50)), Rows(truth.data(2500, seed=2))
    svi = SVI(vae.model, vae.guide, torch.optim.SGD(vae.parameters(), lr=0.0), Trace_ELBO(beta=0.5))
    first, second = fit(svi, train, validation, epochs=2, batch_size=16, progress=False)
    elbo, validation_elbo = (
        float(truth.log_likelihood(rows.columns[0]).mean()) for rows in (train, validation)
    )
    assert first.train_elbo == pytest.approx(elbo, abs=1e-5)
    assert first.validation_elbo == pytest.approx(validation_elbo, abs=1e-5)
    assert first.train_elbo == pytest.approx(first.train_log_likelihood - first.train_kl)
    assert first.validation_elbo == pytest.approx(
        first.validation_log_likelihood - first.validation_kl
    )
    assert first.loss == pytest.approx(0.5 * first.train_kl - first.train_log_likelihood)
    assert (
        first.active_units
        == active_units(truth.posterior(validation.columns[0]).mean)
        == truth.latent
    )
    assert (first.epoch, first.step, first.beta, first.learning_rate) == (1, 4, 0.5, 0.0)
    assert (second.epoch, second.step) == (2, 8)
    assert (
        second.validation_log_likelihood == first.validation_log_likelihood
    )  # the same noise for the same weights
    assert second.train_log_likelihood != first.train_log_likelihood


def test_validation_agrees_with_the_closed_form_kl():
    svi, _ = make()
    torch.manual_seed(1)
    data = Rows(Bits(5000).batch(torch.arange(5000)))
    estimate, active = validate(svi, data, seed=3)
    svi.model.__self__.eval()
    with torch.no_grad():
        q = svi.model.__self__.encoder(data.columns[0])
        kl = torch.distributions.kl_divergence(
            q.base_dist, torch.distributions.Normal(0.0, 1.0)
        ).sum(-1)
        log_ratio = q.log_prob(z := q.sample()) - StandardNormal(2)().log_prob(z)
    assert abs(float(estimate.kl - kl.sum())) < 4 * float(log_ratio.std()) * 5000**0.5
    assert active == active_units(q.mean)


def test_training_learns():
    _, records = run(epochs=30, batch_size=4)
    assert records[-1].train_elbo > records[0].train_elbo + 1
    assert records[-1].validation_elbo > records[0].validation_elbo + 1


def test_schedules_show():
    _, records = run(epochs=5, make_options=("Adam", "step"))
    assert [r.learning_rate for r in records] == pytest.approx([3e-3, 3e-3, 1.5e-3, 1.5e-3, 7.5e-4])
    assert [r.beta for r in records] == pytest.approx(
        [0.2, 0.5, 0.8, 1.0, 1.0]
    )  # of the last of 3 steps


def test_without_validation():
    svi, _ = make()
    (record,) = fit(svi, TRAIN, epochs=1, **OPTIONS)
    assert (
        record.validation_elbo
        is record.validation_log_likelihood
        is record.validation_kl
        is record.active_units
        is None
    )


class OwnELBO(pyro.infer.Trace_ELBO):
    """A subclass of one of Pyro's ELBOs runs as it is."""


def test_an_objective_of_pyros_own():
    svi, _ = make(objective=OwnELBO())
    (record,) = fit(svi, TRAIN, VALIDATION, epochs=1, **OPTIONS)
    assert record.loss > 0
    assert math.isnan(record.train_elbo)  # unknown
    assert record.validation_elbo == record.validation_log_likelihood - record.validation_kl
    assert record.beta is None


def test_programs_without_continuous_latents_and_with_two_arguments():
    logits = nn.Parameter(torch.zeros(3))

    def model(x, y):
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Categorical(torch.ones(3)))
            pyro.sample("x", dist.Normal(k + y, 1.0), obs=x)

    def guide(x, y):
        with pyro.plate("data", len(x)):
            pyro.sample("k", dist.Categorical(logits=logits))

    data = Rows(torch.full((30,), 2.0), torch.zeros(30))
    svi = SVI(model, guide, torch.optim.Adam([logits], lr=0.1), Trace_ELBO())
    records = fit(svi, data, data, epochs=30, batch_size=30, progress=False)
    assert logits.argmax() == 2
    assert records[-1].active_units is None


# Order, randomness, state


def test_every_datum_is_visited_once_per_epoch_in_a_new_order():
    data = Rows(torch.rand(50, 64).round())
    svi, _ = make()
    fit(svi, data, epochs=2, **OPTIONS)
    first, second = torch.cat(data.visits[:4]), torch.cat(data.visits[4:])
    assert [len(v) for v in data.visits] == [16, 16, 16, 2] * 2
    assert first.sort().values.tolist() == second.sort().values.tolist() == list(range(50))
    assert not torch.equal(first, second)


def test_shards_are_disjoint_and_of_equal_size():
    shards = [torch.cat(epoch_batches(11, 2, 0, 1, rank, 3)) for rank in range(3)]
    assert [len(shard) for shard in shards] == [3, 3, 3]
    assert len(set(torch.cat(shards).tolist())) == 9


def test_results_depend_on_the_seed_alone():
    _, records = run()
    svi, again = run()
    _, other = run(seed=1)
    assert [replace(r, seconds=0) for r in records] == [replace(r, seconds=0) for r in again]
    assert other[0].loss != records[0].loss
    assert not equal(weights(svi), weights(make()[0]))


def test_nothing_is_left_behind():
    svi, _ = make()
    vae = svi.model.__self__.eval()
    vae.decoder.train()
    modes = [module.training for module in vae.modules()]

    def state():
        flags = (
            torch.is_grad_enabled(),
            torch.distributions.Distribution._validate_args,
            pyro.infer.util.is_validation_enabled(),
        )
        store = pyro.get_param_store()
        return (
            torch.get_rng_state().tolist(),
            flags,
            len(store),
            [module.training for module in vae.modules()],
        )

    before = state()
    for _ in iter_epochs(svi, TRAIN, VALIDATION, epochs=2, **OPTIONS):
        assert state() == before
    assert state() == before
    assert modes == before[-1]
    assert vae.encoder.net[1].num_batches_tracked == 6  # in train mode while training


def test_no_graphs_are_kept():
    def alive():
        gc.collect()
        tensors = [o for o in gc.get_objects() if issubclass(type(o), Tensor)]
        return len(tensors), sum(t.grad_fn is not None for t in tensors)

    svi, _ = make()
    gc.freeze()  # what is older than this test is not counted
    try:
        _, others = alive()
        counts = [alive() for _ in iter_epochs(svi, TRAIN, VALIDATION, epochs=4, **OPTIONS)]
    finally:
        gc.unfreeze()
    assert counts[1] == counts[2] == counts[3]
    assert counts[0][1] <= others


def test_progress(capfd):
    run()
    assert capfd.readouterr() == ("", "")
    run(progress=True)
    assert "9/9" in capfd.readouterr().err


# Resume


@pytest.mark.filterwarnings(
    "ignore:The epoch parameter in:UserWarning"
)  # torch 2.7's SequentialLR passes it itself
@pytest.mark.parametrize(("optimiser", "scheduler"), RESUMED)
def test_resumed_at_every_epoch(tmp_path, optimiser, scheduler):
    whole, records = run(5, tmp_path / "whole", make_options=(optimiser, scheduler))
    folder = tmp_path / "parts"
    parts = []
    for epoch in range(1, 6):
        svi, more = run(epoch, folder, resume=True, make_options=(optimiser, scheduler))
        parts += more
    assert [replace(r, seconds=0) for r in parts] == [replace(r, seconds=0) for r in records]
    assert equal(weights(svi), weights(whole))
    for name in ("last.pt", "previous.pt", "best.pt"):
        assert equal(timeless(folder, name), timeless(tmp_path / "whole", name))
    rows = list(csv.DictReader((folder / "metrics.csv").read_text().splitlines()))
    assert [float(row["validation_elbo"]) for row in rows] == [r.validation_elbo for r in records]
    assert run(5, folder, resume=True, make_options=(optimiser, scheduler))[1] == []


@pytest.mark.slow
def test_killed_and_resumed(tmp_path):
    """Ten kills at random moments, one before each move of a file: the same weights bit for bit."""
    script = Path(__file__).with_name("interrupted.py")
    done = subprocess.run(
        [sys.executable, script, tmp_path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["ends"] == {
        "whole": [0],
        "random_moments": [9] * 10 + [0],
        "moves": [9] * 11 + [0],
    }, done.stderr
    for folder in ("random_moments", "moves"):
        for name in ("last.pt", "previous.pt", "best.pt"):
            assert equal(timeless(tmp_path / folder, name), timeless(tmp_path / "whole", name)), (
                folder,
                name,
            )


@pytest.mark.parametrize("number", range(1, 12))
def test_interrupted_at_every_move_of_the_only_epoch(tmp_path, monkeypatch, number):
    run(1, tmp_path / "whole")
    moves = itertools.count(1)

    def counting(operation):
        def move(*args):
            if next(moves) == number:
                raise KeyboardInterrupt
            operation(*args)

        return move

    for name in ("fsync", "replace"):
        monkeypatch.setattr(os, name, counting(getattr(os, name)))
    with pytest.raises(KeyboardInterrupt):
        run(1, tmp_path / "run")
    monkeypatch.undo()
    run(1, tmp_path / "run", resume=True)
    for name in ("last.pt", "best.pt"):
        assert equal(timeless(tmp_path / "run", name), timeless(tmp_path / "whole", name))
    assert len((tmp_path / "run" / "metrics.csv").read_text().splitlines()) == 2


def test_early_stopping(tmp_path):
    def train(patience, epochs=50):
        svi, _ = make(objective=TraceMeanField_ELBO())
        data = Rows(Bits(16).probabilities.round()), Rows(1 - Bits(16).probabilities.round())
        return list(
            iter_epochs(
                svi,
                *data,
                epochs=epochs,
                patience=patience,
                folder=tmp_path,
                resume=True,
                **OPTIONS,
            )
        )

    records = train(3)
    elbos = [r.validation_elbo for r in records]
    best = 1 + elbos.index(max(elbos))
    assert best + 3 == len(records) < 50
    assert load_checkpoint(tmp_path / "best.pt")["epoch"] == best
    assert train(3) == []
    assert [r.epoch for r in train(5)] == [len(records) + 1, len(records) + 2]


def test_best_is_the_best(tmp_path):
    _, records = run(4, tmp_path, make_options=("SGD with momentum",))
    state = load_checkpoint(tmp_path / "best.pt")
    svi, _ = make()
    svi.model.__self__.load_state_dict(state["modules"][0])
    estimate, _ = validate(svi, VALIDATION, seed=0)
    best = max(records, key=lambda r: r.validation_elbo)
    assert state["epoch"] == best.epoch
    assert float(estimate.elbo) / len(VALIDATION) == pytest.approx(best.validation_elbo)


def test_best_is_the_last_without_validation(tmp_path):
    svi, _ = make()
    fit(svi, TRAIN, epochs=2, folder=tmp_path, **OPTIONS)
    assert equal(timeless(tmp_path, "best.pt"), timeless(tmp_path))


def test_corrupt_and_missing_checkpoints(tmp_path):
    whole, _ = run(4, tmp_path / "whole")
    folder = tmp_path / "run"
    run(3, folder)
    content = (folder / "last.pt").read_bytes()
    (folder / "last.pt").write_bytes(content[: len(content) // 2])
    with pytest.raises(
        ValueError, match=r"run/last\.pt, .*; delete it to resume from .*previous\.pt"
    ):
        run(4, folder, resume=True)
    (folder / "last.pt").unlink()
    svi, records = run(4, folder, resume=True)
    assert [r.epoch for r in records] == [3, 4]
    assert equal(weights(svi), weights(whole))


def test_a_failed_save_raises_and_leaves_the_previous_one(tmp_path, monkeypatch):
    whole, _ = run(4, tmp_path / "whole")
    folder = tmp_path / "run"
    run(2, folder)
    before = timeless(folder)

    def fail(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        run(4, folder, resume=True)
    monkeypatch.undo()
    assert equal(timeless(folder), before)
    assert sorted(path.name for path in folder.iterdir()) == [
        "best.pt",
        "last.pt",
        "metrics.csv",
        "previous.pt",
    ]
    svi, _ = run(4, folder, resume=True)
    assert equal(weights(svi), weights(whole))


# Failure


class Poisoned(Rows):
    """Data one of which, from its second visit on, is not a number."""

    def batch(self, indices: Tensor) -> Tensor:
        batch = super().batch(indices)
        return torch.where((indices == 7).unsqueeze(-1) & (len(self.visits) > 4), torch.nan, batch)


def poisoned_run(folder=None, epochs=3):
    svi, _ = make()
    data = Poisoned(Bits(40).probabilities.round())
    svi.step(data.batch(torch.arange(16)))
    svi.num_steps = 0
    return fit(svi, data, epochs=epochs, folder=folder, **OPTIONS)


def test_a_loss_that_is_not_finite_is_named_and_reproduced(tmp_path):
    with pytest.raises(
        FloatingPointError,
        match=r"a loss of nan in epoch 2, step [456] \(batch [123] of 3\): .*reproduce.*failure",
    ):
        poisoned_run(tmp_path)
    failure = load_checkpoint(tmp_path / "failure.pt")
    assert failure["epoch"] == 2
    assert failure["step"] == 3 + failure["batch_number"]
    assert 7 in failure["indices"]
    assert torch.equal(failure["batch"][0].isnan().any(1), failure["indices"] == 7)
    assert equal(failure["state"], load_checkpoint(tmp_path / "last.pt"))
    assert failure["state"]["epoch"] == 1
    svi, _ = make()
    data = Rows(
        torch.where(
            (torch.arange(40) == 7).unsqueeze(-1), torch.nan, Bits(40).probabilities.round()
        )
    )
    svi._checked = True
    assert reproduce(svi, data, tmp_path / "failure.pt").isnan()
    assert svi.num_steps == failure["step"]
    assert torch.equal(data.visits[-1], failure["indices"])
    with pytest.raises(ValueError, match=r"expected training set length 40 .* got 41"):
        reproduce(svi, Rows(torch.zeros(41, 64)), tmp_path / "failure.pt")


def test_failure_is_named_without_a_folder():
    with pytest.raises(FloatingPointError, match=r"epoch 2, step [456] \(batch [123] of 3\)$"):
        poisoned_run()


def test_weights_that_are_not_finite_are_never_saved(tmp_path):
    svi, _ = make()
    parameter = next(svi.model.__self__.parameters())
    parameter.register_hook(
        lambda grad: grad * (torch.inf if svi.num_steps == 5 else 1.0)
    )  # the last step of epoch 2
    with pytest.raises(
        FloatingPointError,
        match=r"got weights that are not finite in epoch 2, step 6 \(batch 3 of 3\)",
    ):
        fit(svi, TRAIN, epochs=4, folder=tmp_path, **OPTIONS)
    assert load_checkpoint(tmp_path / "last.pt")["epoch"] == 1
    svi, _ = make()
    records = iter_epochs(svi, TRAIN, epochs=4, folder=tmp_path, resume=True, **OPTIONS)
    assert next(records).epoch == 2


def test_the_first_bad_loss_of_an_interval_is_found():
    losses = torch.tensor([3.0, torch.inf, torch.nan, 5.0])
    steps = [(Estimate(x, 2 * x, None), (torch.tensor(i),)) for i, x in enumerate(losses, 2)]
    with pytest.raises(NonFinite, match="a loss of inf") as info:
        _checked(steps, taken=6)
    assert (info.value.number, info.value.batch) == (3, (torch.tensor(3),))
    known = [row[:2] for row in _checked([steps[0], steps[3]], taken=3)]
    assert known == [[3, 6], [5, 10]]
    (row,) = _checked(steps[:1], taken=3)
    assert row[:2] == [3, 6]
    assert math.isnan(row[2])


def test_the_sums_of_an_epoch_have_the_precision_of_the_loss():
    pair = VAE(StandardNormal(2), Bernoulli(mlp(2, 4)), DiagonalNormal(mlp(4, 4))).double()
    optim = torch.optim.Adam(pair.parameters(), lr=1e-3)
    svi = SVI(pair.model, pair.guide, optim, Trace_ELBO())
    data = Rows(torch.ones(6, 4, dtype=torch.float64))
    losses = []
    sums = train_epoch(
        svi, data, [torch.arange(6)] * 2, 0, 1, lambda: losses.append(svi.estimate.loss)
    )
    assert sums.loss.dtype == torch.float64
    assert len(losses) == 2
    assert sums.loss == sum(losses)


class Watched(Rows):
    """The user's own data, in memory that is used again, which look at the training."""

    def __init__(self, *columns: Tensor) -> None:
        super().__init__(*columns)
        self.memory, self.steps = torch.empty(100, 64), []

    def batch(self, indices: Tensor) -> Tensor:
        self.steps.append(self.svi.num_steps)
        return torch.index_select(self.columns[0], 0, indices, out=self.memory[: len(indices)])


def test_a_batch_of_the_users_data_is_asked_for_after_the_last_step():
    rows = Bits(40).probabilities.round()
    losses = []
    for data in (rows, Watched(rows)):
        svi, _ = make()
        data.svi = svi
        losses.append([record.loss for record in fit(svi, data, epochs=2, **OPTIONS)])
    assert data.steps == list(range(6))
    assert losses[0] == losses[1]


def test_batches_of_our_data_are_taken_together():
    """With the same steps: each estimate is there before the next step."""
    data = as_data(torch.rand(300, 28 * 28).round())
    indices = torch.arange(300).split(20)
    groups = [len(some) for some in take_all(data, indices, torch.device("cpu"))]
    assert groups == [15]
    assert [len(some) for some in take_all(data, indices * 8, torch.device("cpu"))] == [100, 20]
    images = Images(torch.full((300, 784), 9, dtype=torch.uint8), (1, 28, 28), "dynamic", 255)
    assert [len(some) for some in take_all(images, indices * 8, torch.device("cpu"))] == [100, 20]
    torch.manual_seed(0)
    pair = VAE(StandardNormal(2), Bernoulli(mlp(2, 784)), DiagonalNormal(mlp(784, 4)))
    svi = SVI(pair.model, pair.guide, torch.optim.Adam(pair.parameters()), Trace_ELBO())
    for number, (estimate, batch) in enumerate(steps(svi, data, list(indices)), 1):
        assert svi.num_steps == number
        assert estimate is svi.estimate
        assert torch.equal(batch[0], data.columns[0][indices[number - 1]])


class Listed(Rows):
    """Batches as lists of arguments, one of which is no tensor."""

    def batch(self, indices: Tensor) -> list[Tensor | None]:
        return [self.columns[0][indices], None]


def test_arguments_of_the_users_data_may_be_anything():
    pair = VAE(StandardNormal(2), Bernoulli(mlp(2, 64)), DiagonalNormal(mlp(64, 4)))
    svi = SVI(
        lambda x, nothing: pair.model(x),
        lambda x, nothing: pair.guide(x),
        torch.optim.Adam(pair.parameters()),
        Trace_ELBO(),
    )
    assert len(fit(svi, Listed(Bits(40).probabilities.round()), epochs=1, **OPTIONS)) == 1


class Fragile(nn.Module):
    """A network that refuses weights that are not finite."""

    def __init__(self) -> None:
        super().__init__()
        self.net = mlp(64, 4)

    def forward(self, x: Tensor) -> Tensor:
        if not all(p.isfinite().all() for p in self.parameters()):
            raise RuntimeError("weights that are not finite")
        return self.net(x)


def test_a_bad_loss_is_named_before_the_next_step_fails(tmp_path):
    pair = VAE(StandardNormal(2), Bernoulli(mlp(2, 64)), DiagonalNormal(Fragile()))
    loss = Trace_ELBO(beta=lambda step: math.inf if step == 1 else 1.0)
    svi = SVI(pair.model, pair.guide, torch.optim.Adam(pair.parameters()), loss)
    with pytest.raises(FloatingPointError, match=r"a loss of nan in epoch 1, step 2 \(batch 2"):
        fit(svi, Bits(40).probabilities.round(), epochs=1, folder=tmp_path, **OPTIONS)
    assert (tmp_path / "failure.pt").exists()


def test_a_failing_step_is_repeated_with_its_pixels_and_noise(tmp_path):
    """Its batch was drawn together with others."""
    values = torch.randint(256, (40, 64), generator=torch.Generator().manual_seed(0))
    data = Images(values.to(torch.uint8), (1, 8, 8), "dynamic", levels=255)

    def failing():
        svi, _ = make()
        svi.objective = Trace_ELBO(beta=lambda step: math.inf if step == 4 else 1.0)
        return svi

    svi = failing()
    with pytest.raises(FloatingPointError, match=r"a loss of nan in epoch 2, step 5 \(batch 2"):
        fit(svi, data, epochs=3, folder=tmp_path, **OPTIONS)
    assert svi.num_steps == 5
    again = failing()
    assert reproduce(again, data, tmp_path / "failure.pt").isnan()
    assert again.num_steps == 5
    assert again.estimate.log_likelihood == svi.estimate.log_likelihood


def error(folder, svi=None, train=TRAIN, validation=VALIDATION, make_options=(), **options):
    svi, scheduler = make(*make_options)
    options = OPTIONS | {"epochs": 2, "resume": True, "scheduler": scheduler} | options
    return fit(svi, train, validation, folder=folder, **options)


ERRORS = {
    "epochs": ({"epochs": -1}, "expected epochs of at least 0, got -1"),
    "batch": ({"batch_size": 0}, "expected batch_size of at least 1, got 0"),
    "seed": ({"seed": -3}, "expected seed of at least 0, got -3"),
    "patience": ({"patience": 0}, "expected patience of at least 1, got 0"),
    "no data": ({"train": Bits(0)}, "expected at least 1 data, got 0"),
    "patience without validation": (
        {"patience": 2, "validation": None},
        "expected a validation set for patience 2, got none",
    ),
    "plateau without validation": (
        {"make_options": ("Adam", "plateau"), "validation": None},
        "expected a validation set for ReduceLROnPlateau",
    ),
    "another run": ({"resume": False}, "expected a folder without a run, got .*run"),
    "another seed": ({"seed": 5}, r"expected seed 0 as in .*last\.pt, got 5"),
    "another batch size": ({"batch_size": 5}, "expected batch size 16 as in .*, got 5"),
    "other data": ({"train": Bits(41)}, "expected training set length 40 as in .*, got 41"),
    "no validation": ({"validation": None}, "expected validation set length 20 as in .*, got None"),
    "another optimiser": (
        {"make_options": ("Adagrad",)},
        "expected optimiser Adam as in .*, got Adagrad",
    ),
    "another scheduler": (
        {"make_options": ("Adam", "step")},
        "expected scheduler None as in .*, got StepLR",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(tmp_path, name):
    options, message = ERRORS[name]
    run(1, tmp_path / "run")
    with pytest.raises(ValueError, match=message):
        error(tmp_path / "run", **options)
    assert load_checkpoint(tmp_path / "run" / "last.pt")["epoch"] == 1


def test_resume_needs_a_folder():
    with pytest.raises(ValueError, match="expected a folder to resume from, got none"):
        run(resume=True)


@pytest.mark.parametrize("validation", [None, torch.ones(5, 64)])
def test_the_progress_bar_says_what_there_is(validation, capsys):
    vae = VAE(StandardNormal(2), Bernoulli(mlp(2, 4, 64)), DiagonalNormal(mlp(64, 4, 4)))
    svi = SVI(vae.model, vae.guide, torch.optim.Adam(vae.parameters()), loss=Trace_ELBO())
    (record,) = fit(svi, torch.ones(5, 64), validation, epochs=1)
    shown = capsys.readouterr().err
    assert f"epoch=1, train={record.train_elbo:.2f}" in shown
    assert ("validation=" in shown) == (validation is not None)


def test_networks_that_prepare_the_data_keep_their_mode():
    class Normalised:
        norm = nn.BatchNorm1d(64, affine=False).eval()

        def __len__(self):
            return 40

        def batch(self, indices):
            return (self.norm(TRAIN.batch(indices)) > 0).float()

    svi, _ = make()
    fit(svi, Normalised(), epochs=1, **OPTIONS)
    assert Normalised.norm.num_batches_tracked == 0
