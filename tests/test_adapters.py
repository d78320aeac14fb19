"""Everything that can be trained on gives the same batches, and what cannot is refused."""

import numpy as np
import pytest
import torch
from interrupted import Bits
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from pyro_vae import SVI, VAE, Bernoulli, DiagonalNormal, StandardNormal, Trace_ELBO, mlp
from pyro_vae.data import adapters
from pyro_vae.data.adapters import as_data
from pyro_vae.data.arrays import from_array
from pyro_vae.models import PerDatumVAE
from pyro_vae.training import fit, iter_epochs, load_checkpoint, reproduce

N, D = 30, 16
X = torch.rand(N, D, generator=torch.Generator().manual_seed(0)).round()
ROWS = torch.arange(N)


class Pairs(Dataset):
    """Items of a map-style data set."""

    def __init__(self, item=lambda index: X[index], length=N):
        self.item, self.length = item, length

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        return self.item(index)


class Stream(IterableDataset):
    def __iter__(self):
        return iter(X)


ONE = {  # x alone, in every form
    "tensor": X,
    "float64 array": X.double().numpy(),
    "tuple of one": (X,),
    "TensorDataset": TensorDataset(X),
    "Dataset": Pairs(),
    "Dataset of arrays": Pairs(lambda index: X[index].numpy()),
    "Subset": Subset(TensorDataset(X), range(N)),
    "Images": from_array(X.numpy().astype(np.uint8)),
}
TWO = {  # x and the row numbers
    "tensors": (X, ROWS),
    "arrays": (X.numpy(), ROWS.numpy()),
    "tensor and array": (X, ROWS.numpy().astype(np.uint16)),
    "TensorDataset": TensorDataset(X, ROWS),
    "Dataset with numbers": Pairs(lambda index: (X[index], index)),
}


def a_svi():
    torch.manual_seed(0)
    vae = VAE(StandardNormal(2), Bernoulli(mlp(2, 8, D)), DiagonalNormal(mlp(D, 8, 4)))
    return SVI(vae.model, vae.guide, torch.optim.Adam(vae.parameters()), Trace_ELBO())


OPTIONS = {"epochs": 2, "batch_size": 8, "progress": False}


def losses(history):
    return [(r.step, r.loss, r.train_kl, r.validation_elbo, r.active_units) for r in history]


@pytest.mark.parametrize("name", ONE)
def test_the_same_training_from_every_form_of_x(name):
    expected = losses(fit(a_svi(), X, X[:20], **OPTIONS))
    assert losses(fit(a_svi(), ONE[name], X[:20], **OPTIONS)) == expected
    whole = losses(fit(a_svi(), X, X, **OPTIONS))
    assert losses(fit(a_svi(), X, ONE[name], **OPTIONS)) == whole


@pytest.mark.parametrize("name", TWO)
def test_a_tuple_is_the_arguments(name):
    indices = torch.tensor([7, 0, 29])
    x, rows = as_data(TWO[name]).batch(indices)
    assert torch.equal(x, X[indices])
    assert x.dtype == torch.float32
    assert rows.tolist() == [7, 0, 29]
    assert rows.dtype in (torch.int64, torch.int32)


def test_rows_reach_the_guide():
    torch.manual_seed(0)
    table = DiagonalNormal(torch.nn.Embedding(N, 4))
    vae = PerDatumVAE(StandardNormal(2), Bernoulli(mlp(2, 8, D)), table)
    before = table.net.weight.detach().clone()
    svi = SVI(vae.model, vae.guide, torch.optim.SGD(vae.parameters(), lr=0.1), Trace_ELBO())
    fit(svi, (X[:20], ROWS[:20]), epochs=1, progress=False)
    moved = (table.net.weight != before).any(1)
    assert moved.tolist() == [True] * 20 + [False] * 10


def test_the_history_is_returned_and_the_generator_is_lazy():
    svi = a_svi()
    records = iter_epochs(svi, X, **OPTIONS)
    assert svi.num_steps == 0
    assert next(records).epoch == 1
    assert svi.num_steps == 4
    assert [r.epoch for r in fit(a_svi(), X, **OPTIONS)] == [1, 2]


def test_a_resumed_fit_returns_the_whole_history(tmp_path):
    first = fit(a_svi(), X, folder=tmp_path, **OPTIONS | {"epochs": 1})
    both = fit(a_svi(), X, folder=tmp_path, resume=True, **OPTIONS)
    assert both[:1] == first
    assert losses(both) == losses(fit(a_svi(), X, **OPTIONS))


def test_the_number_of_epochs_must_be_given():
    with pytest.raises(TypeError, match="epochs"):
        fit(a_svi(), X)


# DataLoader


@pytest.mark.parametrize(("drop_last", "count", "steps"), [(False, 30, 4), (True, 24, 3)])
def test_a_loader_gives_means_over_what_it_visits(drop_last, count, steps):
    loader = DataLoader(TensorDataset(X), batch_size=8, drop_last=drop_last)
    svi = a_svi()
    svi.optim.param_groups[0]["lr"] = 0.0  # the loss of each datum has one distribution
    (record,) = fit(svi, loader, loader, epochs=1, progress=False)
    assert record.step == steps
    svi = a_svi()
    svi.optim.param_groups[0]["lr"] = 0.0
    kl = [fit(svi, X[:count], epochs=1, seed=i, progress=False)[0].train_kl for i in range(20)]
    kl = torch.tensor(kl)
    assert abs(record.train_kl - kl.mean()) < 4.5 * kl.std()
    assert abs(record.validation_kl - kl.mean()) < 4.5 * kl.std()
    assert record.active_units is not None


def test_a_loader_makes_its_own_batches():
    seen = []

    def collate(items):
        seen.append(len(items))
        return torch.stack(items)

    loader = DataLoader(Pairs(), batch_size=7, shuffle=True, collate_fn=collate)
    fit(a_svi(), loader, epochs=2, progress=False)
    assert seen == [7, 7, 7, 7, 2] * 2


def test_a_loader_is_not_resumed_and_fails_by_name(tmp_path):
    loader = DataLoader(TensorDataset(X), batch_size=10)
    fit(a_svi(), loader, epochs=1, folder=tmp_path / "run", progress=False)
    with pytest.raises(ValueError, match="to resume a run with, got a DataLoader: its order"):
        fit(a_svi(), loader, epochs=2, folder=tmp_path / "run", resume=True, progress=False)
    bad = DataLoader(TensorDataset(X.index_fill(0, torch.tensor(25), torch.nan)), batch_size=10)
    svi = a_svi()
    svi.step(X)  # the first step validates its arguments
    with pytest.raises(FloatingPointError, match=r"batch 3 of 3\): .*failure\.pt holds the batch"):
        fit(svi, bad, epochs=1, folder=tmp_path / "bad", progress=False)
    path = tmp_path / "bad" / "failure.pt"
    assert load_checkpoint(path)["batch"][0].isnan().any(1).tolist() == [False] * 5 + [True] + (
        [False] * 4
    )
    with pytest.raises(ValueError, match="data by index to reproduce a step, got a DataLoader"):
        reproduce(a_svi(), bad, path)


class Uneven(Bits):
    """Not a torch data set."""

    batch = None


def holed(value):
    x = X.clone()
    x[4, 2] = x[9, 0] = value
    return x


class Short:
    """A sampler that gives fewer data than it says."""

    def __len__(self):
        return N

    def __iter__(self):
        return iter(range(20))


def half(items):
    return torch.stack(items[: len(items) // 2])


ERRORS = {
    "a list": ([X], TypeError, r"expected data as a tensor, .*, got a list"),
    "text": ("digits", TypeError, "expected data as a tensor, .*, got a str"),
    "a number": (3, TypeError, "expected data as a tensor, .*, got a int"),
    "empty tuple": ((), TypeError, "got an empty tuple"),
    "list in a tuple": ((X, [1]), TypeError, "got a tuple with a list"),
    "no batch": (Uneven(3), TypeError, "got a Uneven"),
    "array of text": (np.array(["a"]), TypeError, "array of bool, integers or floats, got <U1"),
    "array of objects": (np.array([None]), TypeError, "integers or floats, got object"),
    "lengths": ((X, ROWS[:3]), ValueError, r"arguments of equal length, got lengths \[30, 3\]"),
    "empty": (X[:0], ValueError, "expected at least 1 data, got 0"),
    "empty Dataset": (Pairs(length=0), ValueError, "expected at least 1 data, got 0"),
    "one number": (torch.tensor(1.0), ValueError, "expected data to have one row per datum"),
    "NaN": (holed(torch.nan), ValueError, "expected data to be finite, .* 2 of 30 rows, .* row 4"),
    "infinity": ((ROWS, holed(torch.inf)), ValueError, "expected argument 2 to be finite, got NaN"),
    "stream": (Stream(), TypeError, "Dataset with a length .*, got Stream"),
    "loader of a stream": (DataLoader(Stream(), 5), TypeError, "with a length, .* one of Stream"),
    "loader without batches": (
        DataLoader(Pairs(), batch_size=None),
        TypeError,
        "with a batch_size and without a batch_sampler, got .* batch_size None",
    ),
    "loader of other batches": (
        DataLoader(Pairs(), batch_size=5, collate_fn=half),
        ValueError,
        "expected a batch of 5 from the DataLoader, got 2",
    ),
    "loader of too few": (
        DataLoader(Pairs(), batch_size=10, sampler=Short()),
        ValueError,
        "expected 30 data from the DataLoader, got 20",
    ),
    "loader of dictionaries": (
        DataLoader(Pairs(lambda index: {"x": X[index]}), batch_size=5),
        TypeError,
        "expected tensors, or tuples of tensors, from the DataLoader, got dict",
    ),
    "items of other types": (
        Pairs(lambda index: object()),
        TypeError,
        "expected items of the Dataset to be tensors, .*, got object",
    ),
    "items of other shapes": (
        Pairs(lambda index: X[index, : index + 1]),
        TypeError,
        "expected items of the Dataset to be .* of equal shapes",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
@pytest.mark.parametrize("part", ["training", "validation"])
def test_errors(name, part):
    data, kind, message = ERRORS[name]
    sets = (data,) if part == "training" else (X, data)
    with pytest.raises(kind, match=message):
        fit(a_svi(), *sets, epochs=1, progress=False)


def test_a_loader_has_its_own_batch_size():
    with pytest.raises(ValueError, match=r"expected no batch_size with a DataLoader, .* got 8"):
        fit(a_svi(), DataLoader(Pairs(), batch_size=5), **OPTIONS)


def test_a_read_only_memory_map_is_not_copied(tmp_path):
    np.save(tmp_path / "x.npy", X.numpy())
    x = np.load(tmp_path / "x.npy", mmap_mode="r")
    torch.set_warn_always(True)  # else torch warns of read-only arrays once in a process
    try:
        data = as_data(x)
    finally:
        torch.set_warn_always(False)
    assert data.columns[0].data_ptr() == x.ctypes.data
    (batch,) = data.batch(torch.tensor([4, 2]))
    assert torch.equal(batch, X[[4, 2]])
    batch.zero_()  # a batch is a copy
    assert np.array_equal(x, X)


@pytest.mark.parametrize("shape", [(7,), (7, 3), (7, 2, 2)])
def test_values_that_are_not_finite_are_found_wherever_they_are(monkeypatch, shape):
    """Looked at in parts of two rows."""
    monkeypatch.setattr(adapters, "CHECKED", 2 * torch.zeros(shape)[0].numel())
    for row in range(7):
        x = torch.zeros(shape)
        x[row] = torch.nan
        with pytest.raises(ValueError, match=f"in 1 of 7 rows, the first of them row {row}"):
            as_data(x)


def test_tensors_stay_what_they_are():
    assert as_data(X.double()).batch(ROWS[:2])[0].dtype == torch.float64
    assert isinstance(as_data(Bits(3)).batch(ROWS[:2]), Tensor)
