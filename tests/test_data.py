import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from pyro_vae.data.arrays import from_array
from pyro_vae.data.folders import read_folder
from pyro_vae.data.images import Images, Pixels, bernoulli, bernoulli_of_bytes
from pyro_vae.data.sources import NAMES
from pyro_vae.data.splits import Splits, load_data

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
RNG = np.random.default_rng(0)
RAMP = (np.arange(256) * np.ones((40, 1))).astype(np.uint8).reshape(40, 16, 16)
COLOURS = RNG.integers(0, 256, (20, 5, 4, 3), dtype=np.uint8)
FLOATS = RNG.random((40, 6, 6)).astype(np.float32)

SOURCES = {  # images with intensities -> (images, whether they are integers)
    "digits": lambda: Images(
        torch.from_numpy(load_digits().data).to(torch.uint8), (1, 8, 8), Pixels.COUNTS, 16
    ),
    "bytes": lambda: from_array(RAMP),
    "floats": lambda: from_array(FLOATS),
    "float bytes": lambda: from_array(RAMP.astype(np.float32) / 255),
    "rgb": lambda: from_array(COLOURS),
}
FITS = {  # the kinds of pixels each source may have
    "digits": {*Pixels} - {Pixels.BYTES},
    "bytes": {*Pixels},
    "floats": {*Pixels} - {Pixels.BYTES, Pixels.COUNTS},
    "float bytes": {*Pixels},
    "rgb": {*Pixels},
}
PAIRS = [(source, kind) for source in SOURCES for kind in Pixels if kind in FITS[source]]
MISFITS = [(source, kind) for source in SOURCES for kind in Pixels if kind not in FITS[source]]


def intensity(images: Images) -> torch.Tensor:
    return images.values.double() / images.levels


# what a program observes


@pytest.mark.parametrize(("source", "kind"), PAIRS)
def test_values_are_of_their_kind(source, kind):
    grey = SOURCES[source]()
    images = grey.as_pixels(kind)
    x = images.all()
    assert images.pixels == kind
    assert x.dtype == torch.float32
    assert x.shape == (len(grey), int(np.prod(grey.shape)))
    expected = {
        Pixels.THRESHOLD: (intensity(grey) >= 0.5).double(),
        Pixels.GREY: intensity(grey),
        Pixels.COUNTS: grey.values.double(),
        Pixels.BYTES: grey.values.double(),
    }
    if kind in expected:
        torch.testing.assert_close(x.double(), expected[kind], rtol=0, atol=1e-7)
    else:
        assert set(x.unique().tolist()) == {0.0, 1.0}
        assert (x[intensity(grey) == 0] == 0).all()
        assert (x[intensity(grey) == 1] == 1).all()


@pytest.mark.parametrize(("source", "kind"), PAIRS)
def test_a_batch_is_rows_of_all(source, kind):
    images = SOURCES[source]().as_pixels(kind)
    rows = torch.tensor([3, 0, 3])
    if kind == Pixels.DYNAMIC:
        assert images.batch(rows).shape == (3, images.values.shape[1])
        assert not torch.equal(images.batch(rows), images.batch(rows))
        assert not torch.equal(images.all(), images.all())
    else:
        assert torch.equal(images.batch(rows), images.all()[rows])
        assert torch.equal(images.subset(rows).all(), images.all()[rows])
        assert torch.equal(images.subset(slice(2, 5)).all(), images.all()[2:5])


@pytest.mark.parametrize("kind", [Pixels.STATIC, Pixels.DYNAMIC])
@pytest.mark.parametrize("source", SOURCES)
def test_draws_have_the_intensities_as_means(source, kind):
    torch.manual_seed(0)
    grey, visits = SOURCES[source](), 50
    draws = [
        grey.as_pixels(kind, seed).all() for seed in range(visits)
    ]  # dynamic: visits of one set; static: one per seed
    mean, p = torch.stack(draws).double().mean(0), intensity(grey)
    noise = (p * (1 - p) / visits).sqrt()
    z = (mean - p)[noise > 0] / noise[noise > 0]
    # z has mean 0 and variance 1 over n pixels: |mean| < 4.5 / sqrt(n); its square has mean 1 and
    # a variance of about 2 + 1 / (visits p (1 - p)), estimated from the data. An inverted or
    # shifted draw fails by far.
    assert z.mean().abs() < 4.5 / len(z) ** 0.5
    assert ((z**2).mean() - 1).abs() < 4.5 * (z**2).std() / len(z) ** 0.5
    assert torch.corrcoef(torch.stack([mean.flatten(), p.flatten()]))[0, 1] > 0.9
    torch.testing.assert_close(mean[noise == 0], p[noise == 0])


@pytest.mark.parametrize("levels", [1, 16, 255])
def test_bernoulli_has_every_probability(levels):
    torch.manual_seed(1)
    n = 40_000
    values = torch.arange(levels + 1, dtype=torch.uint8).expand(n, -1)
    p = torch.arange(levels + 1) / levels
    error = (p * (1 - p) / n).sqrt()
    assert ((bernoulli(values, levels).mean(0) - p).abs() <= 4.5 * error).all()  # 0 and 1 are exact


def test_bernoulli_of_bytes_has_every_probability():
    """Plain bytes would give v / 256 in place of v / 255."""
    torch.manual_seed(1)
    n = 400_000
    values = torch.arange(256, dtype=torch.uint8)
    p = torch.arange(256, dtype=torch.float64) / 255
    lit = sum(bernoulli_of_bytes(values.expand(n // 10, -1)).double().mean(0) for _ in range(10))
    error = (p * (1 - p) * (1 / n + 1 / 10 / 2**16)).sqrt()  # rows of one draw share a number
    assert ((lit / 10 - p).abs() <= 4.5 * error).all()  # 0 and 1 are exact
    mean_error = error.square().sum().sqrt() / 256  # plain bytes would be wrong by 38 times this
    assert abs((lit / 10 - p).mean()) <= 4.5 * mean_error


@pytest.mark.parametrize("v", [0, 1, 128, 254, 255])
def test_bytes_light_a_pixel_in_exactly_its_share_of_cases(monkeypatch, v):
    """Of the 256 x 255 equally likely pairs of a pixel's byte and its column's number."""
    pairs = torch.cartesian_prod(torch.arange(256), torch.arange(255)).to(torch.uint8)
    given = iter([pairs[:, 0], pairs[:, 1]])

    def random_(x, *_, **__):
        x.view(torch.uint8).copy_(next(given))
        return x

    monkeypatch.setattr("torch.Tensor.random_", random_)
    lit = bernoulli_of_bytes(torch.full((1, len(pairs)), v, dtype=torch.uint8))
    assert lit.sum() == 256 * v


@pytest.mark.parametrize("levels", [1, 16, 255])
@pytest.mark.parametrize("u", [-(2**15), 2**15 - 1])
def test_bernoulli_is_certain_at_both_ends(monkeypatch, levels, u):
    # the smallest and the largest number that 16 bits give
    monkeypatch.setattr(
        "torch.Tensor.random_",
        lambda words, *_, **__: words.view(torch.int16).fill_(u).view(torch.int64),
    )
    assert bernoulli(torch.tensor([0, levels], dtype=torch.uint8), levels).tolist() == [0.0, 1.0]


@pytest.mark.parametrize("kind", ["grey", "dynamic"])
def test_batches_are_those_asked_for_one_by_one(monkeypatch, kind):
    """Of certain pixels, for which a draw is no matter of chance; three batches at once."""
    monkeypatch.setattr("pyro_vae.data.adapters.GROUP_BYTES", 3 * 4 * 256 * 4)
    values = torch.tensor([0, 255], dtype=torch.uint8)[torch.randint(2, (40, 256))]
    images = Images(values, (1, 16, 16), Pixels(kind), 255)
    indices = torch.randperm(18).split(4)
    groups = list(images.batches(indices))
    assert [len(some) for some in groups] == [3, 2]
    got = [x for some in groups for (x,) in some]
    assert [len(x) for x in got] == [4, 4, 4, 4, 2]
    for x, index in zip(got, indices, strict=True):
        assert x.equal(values[index] / 255)
    assert not list(images.batches([]))


def test_draws_of_pixels_and_visits_are_independent():
    torch.manual_seed(2)
    images = Images(torch.full((2000, 8), 128, dtype=torch.uint8), (1, 2, 4), Pixels.DYNAMIC, 255)
    both = torch.cat([images.all(), images.all()], 1)
    off = torch.corrcoef(both.T) - torch.eye(16)
    assert off.abs().max() < 4.5 / 2000**0.5  # the standard error of a correlation


@pytest.mark.parametrize("source", SOURCES)
def test_mean_is_the_mean_intensity(source):
    images = SOURCES[source]()
    torch.testing.assert_close(images.mean().double(), intensity(images).mean(0), rtol=0, atol=1e-6)
    assert images.mean().dtype == torch.float32


@pytest.mark.parametrize("source", SOURCES)
def test_static_is_drawn_once_and_depends_on_the_seed_alone(source):
    images = SOURCES[source]()
    before = torch.get_rng_state()
    first = images.as_pixels("static", seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(99)
    assert torch.equal(images.as_pixels("static", seed=3).values, first.values)
    assert not torch.equal(images.as_pixels("static", seed=4).values, first.values)
    assert torch.equal(first.all(), first.all())
    assert (first.levels, first.values.dtype) == (1, torch.uint8)


def test_dynamic_follows_the_global_seed():
    images = SOURCES["digits"]().as_pixels("dynamic")
    rows = torch.arange(50)

    def visit():
        torch.manual_seed(5)
        return images.batch(rows)

    assert torch.equal(visit(), visit())


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("source", "kind"), PAIRS)
def test_device_is_kept(source, kind, device):
    images = SOURCES[source]().to(device)
    with torch.device("meta"):  # whatever the default device is
        moved = images.as_pixels(kind)
        batch = moved.batch(torch.arange(3, device="cpu"))
    assert (
        moved.values.device.type
        == batch.device.type
        == moved.subset(slice(2)).values.device.type
        == device
    )
    if kind == Pixels.STATIC:
        assert torch.equal(moved.values.cpu(), SOURCES[source]().as_pixels(kind).values)


@pytest.mark.parametrize(("source", "kind"), MISFITS)
def test_kinds_that_do_not_fit_are_refused(source, kind):
    with pytest.raises(ValueError, match=r"^expected (integer values|levels 0\.\.255) for"):
        SOURCES[source]().as_pixels(kind)


@pytest.mark.parametrize("binary", ["static", "threshold"])
@pytest.mark.parametrize("kind", Pixels)
def test_binary_images_stay_what_they_are(binary, kind):
    images = SOURCES["digits"]().as_pixels(binary)
    if kind == binary:
        assert images.as_pixels(kind) is images
    else:
        with pytest.raises(ValueError, match=rf"make {kind} pixels of, got binary \({binary}\)"):
            images.as_pixels(kind)


# arrays

X = np.arange(24, dtype=np.uint8)
ARRAYS = {  # array -> shape, kind, levels, dtype
    "square": (np.ones((2, 9), np.uint8) * 7, (1, 3, 3), Pixels.BYTES, 255, torch.uint8),
    "flat": (np.ones((2, 12), np.uint8) * 7, (1, 1, 12), Pixels.BYTES, 255, torch.uint8),
    "grey": (X.reshape(2, 3, 4), (1, 3, 4), Pixels.BYTES, 255, torch.uint8),
    "channels first": (X.reshape(1, 3, 4, 2), (3, 4, 2), Pixels.BYTES, 255, torch.uint8),
    "channels last": (X.reshape(1, 4, 2, 3), (3, 4, 2), Pixels.BYTES, 255, torch.uint8),
    "int64": (X.reshape(2, 3, 4).astype(np.int64), (1, 3, 4), Pixels.BYTES, 255, torch.uint8),
    "bool": (X.reshape(2, 3, 4) % 2 == 0, (1, 3, 4), Pixels.STATIC, 1, torch.uint8),
    "binary floats": (
        (X % 2).reshape(2, 3, 4).astype(float),
        (1, 3, 4),
        Pixels.STATIC,
        1,
        torch.uint8,
    ),
    "floats": (FLOATS, (1, 6, 6), Pixels.GREY, 1, torch.float32),
    "floats of bytes": (RAMP / 255, (1, 16, 16), Pixels.GREY, 255, torch.uint8),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_become_images(name):
    array, shape, kind, levels, dtype = ARRAYS[name]
    images = from_array(array)
    assert (images.shape, images.pixels, images.levels, images.values.dtype) == (
        shape,
        kind,
        levels,
        dtype,
    )
    planes = np.moveaxis(array, 3, 1) if name == "channels last" else array
    np.testing.assert_array_equal(
        images.all().numpy(), planes.reshape(len(array), -1).astype(np.float32)
    )


# whole data sets


def write_idx(path: Path, array: np.ndarray) -> None:
    header = bytes([0, 0, 8, array.ndim]) + b"".join(int(n).to_bytes(4, "big") for n in array.shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(header + array.astype(np.uint8).tobytes())


def fake(folder: Path, name: str, num_train: int = 40, num_test: int = 10) -> dict[str, np.ndarray]:
    """Write tiny files of random images in the layout of torchvision's MNIST-like sets."""
    rng, arrays = np.random.default_rng(1), {}
    for part, count in {"train": num_train, "t10k": num_test}.items():
        prefix = (
            f"emnist-balanced-{'test' if part == 't10k' else part}" if name == "EMNIST" else part
        )
        arrays[part] = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        write_idx(folder / name / "raw" / f"{prefix}-images-idx3-ubyte", arrays[part])
        write_idx(folder / name / "raw" / f"{prefix}-labels-idx1-ubyte", np.arange(count) % 10)
    return arrays


def rows_of(splits: Splits) -> list[tuple[float, ...]]:
    return [tuple(row) for images in splits for row in images.values.tolist()]


MNIST_LIKE = {
    "mnist": "MNIST",
    "fashion_mnist": "FashionMNIST",
    "kmnist": "KMNIST",
    "emnist": "EMNIST",
}


@pytest.mark.parametrize("name", MNIST_LIKE)
@pytest.mark.parametrize("kind", Pixels)
def test_torchvision_sets(tmp_path, name, kind):
    arrays = fake(tmp_path, MNIST_LIKE[name])
    grey = load_data(name, tmp_path, pixels="grey", validation_size=7)
    assert [len(images) for images in grey] == [33, 7, 10]
    upright = {
        part: array.swapaxes(1, 2) if name == "emnist" else array for part, array in arrays.items()
    }
    whole = torch.cat([grey.train.all(), grey.validation.all()]).numpy() * 255
    np.testing.assert_allclose(
        whole, upright["train"].reshape(40, -1), atol=1e-4
    )  # in order: the last are for validation
    np.testing.assert_allclose(
        grey.test.all().numpy() * 255, upright["t10k"].reshape(10, -1), atol=1e-4
    )
    assert torch.equal(
        torch.cat([images.labels for images in grey]),
        torch.cat([torch.arange(40), torch.arange(10)]) % 10,
    )
    assert load_data(name, tmp_path, pixels=kind, validation_size=7).train.pixels == kind
    assert load_data(name, tmp_path, validation_size=7).train.pixels == Pixels.DYNAMIC


def test_dynamic_sets_are_evaluated_on_the_static_draw(tmp_path):
    fake(tmp_path, "MNIST")
    torch.manual_seed(0)
    dynamic = load_data("mnist", tmp_path, validation_size=5, seed=1)
    torch.manual_seed(1)
    static = load_data("mnist", tmp_path, validation_size=9, pixels="static", seed=1)
    assert [images.pixels for images in dynamic] == ["dynamic", "static", "static"]
    assert torch.equal(dynamic.test.all(), static.test.all())
    assert torch.equal(
        dynamic.validation.all(), static.validation.all()[-5:]
    )  # whatever the size of the validation set


class FakeDrawings:
    """As torchvision's Omniglot: black on white, 105 x 105."""

    def __init__(self, root, background, download):
        self.count = 30 if background else 5

    def __iter__(self):
        for index in range(self.count):
            page = np.full((105, 105), 255, np.uint8)
            page[: 15 * (1 + index % 5), :60] = 0  # ink, in whole blocks of 15 = 4 pixels
            yield Image.fromarray(page), index


class FakeCIFAR:
    def __init__(self, root, train, download):
        self.data = np.random.default_rng(int(train)).integers(
            0, 256, (30 if train else 5, 32, 32, 3), dtype=np.uint8
        )
        self.targets = list(range(len(self.data)))


def test_omniglot_has_light_ink_on_dark_paper(monkeypatch):
    monkeypatch.setattr("torchvision.datasets.Omniglot", FakeDrawings)
    splits = load_data("omniglot", pixels="grey")
    assert [len(images) for images in splits] == [27, 3, 5]
    assert splits.train.shape == (1, 28, 28)
    for images in splits:
        for drawing, label in zip(
            images.all().unflatten(1, (28, 28)), images.labels.tolist(), strict=True
        ):
            ink = torch.zeros(28, 28)
            ink[: 4 * (1 + label % 5), :16] = 1
            assert torch.equal(drawing, ink)
    assert sorted(torch.cat([splits.train.labels, splits.validation.labels]).tolist()) == list(
        range(30)
    )


def test_cifar_is_channels_first(monkeypatch):
    monkeypatch.setattr("torchvision.datasets.CIFAR10", FakeCIFAR)
    train, _, test = load_data("cifar10", validation_size=4)
    assert (train.pixels, train.shape, len(train), len(test)) == (Pixels.BYTES, (3, 32, 32), 26, 5)
    expected = FakeCIFAR("", True, False).data.transpose(0, 3, 1, 2).reshape(30, -1)
    np.testing.assert_array_equal(train.all().numpy(), expected[:26])


def numbered(count: int = 60) -> np.ndarray:
    """Images that are all different."""
    return np.arange(count * 12, dtype=np.int64).reshape(count, 3, 4) % 251


def save_npy(folder):
    np.save(folder / "x.npy", numbered())
    return folder / "x.npy"


def save_npz(folder):
    np.savez(folder / "x.npz", x=numbered(), y=np.arange(60))
    return folder / "x.npz"


def save_parts(folder):
    x = numbered()
    np.savez(
        folder / "parts.npz",
        train=x[:40],
        validation=x[40:45],
        test=x[45:],
        **{f"{part}_labels": np.arange(60)[rows] for part, rows in PARTS.items()},
    )
    return folder / "parts.npz"


PARTS = {"train": slice(0, 40), "validation": slice(40, 45), "test": slice(45, 60)}


def save_images(folder):
    for index, image in enumerate(numbered()):
        Image.fromarray(image.astype(np.uint8)).save(folder / f"{index:03d}.png")
    (folder / "readme.txt").write_text("not an image")
    return folder


def save_classes(folder):
    for index, image in enumerate(numbered()):
        (folder / "ab"[index % 2]).mkdir(exist_ok=True)
        Image.fromarray(image.astype(np.uint8)).save(folder / "ab"[index % 2] / f"{index:03d}.png")
    return folder


FILES = {
    "npy": save_npy,
    "npz": save_npz,
    "parts": save_parts,
    "images": save_images,
    "classes": save_classes,
    "digits": lambda _: "digits",
}


@pytest.mark.parametrize("name", FILES)
def test_splits_are_disjoint_complete_and_reproducible(name, tmp_path):
    path = FILES[name](tmp_path)
    before = torch.get_rng_state()
    splits = load_data(path)
    assert torch.equal(torch.get_rng_state(), before)
    rows = rows_of(splits)
    expected = load_digits().data if name == "digits" else numbered().reshape(60, -1)
    assert sorted(rows) == sorted(tuple(row) for row in expected.tolist())
    assert len(splits.test) == {"digits": 300, "parts": 15}.get(name, 6)
    assert len(splits.validation) == {"digits": 200, "parts": 5}.get(name, 6)
    with torch.device("meta"):
        assert rows == rows_of(load_data(path))
    assert (rows != rows_of(load_data(path, seed=1))) == (name != "parts")
    assert splits.train.labels is None or splits.train.labels.device.type == "cpu"


@pytest.mark.parametrize("name", ["npz", "parts", "classes", "digits"])
def test_labels_stay_with_their_images(name, tmp_path):
    if name == "digits":
        data = load_digits()
        truth = {
            tuple(row): label
            for row, label in zip(data.data.tolist(), data.target.tolist(), strict=True)
        }
    else:
        truth = {
            tuple(row): index % 2 if name == "classes" else index
            for index, row in enumerate(numbered().reshape(60, -1).tolist())
        }
    for images in load_data(FILES[name](tmp_path)):
        assert images.labels is not None
        assert images.labels.tolist() == [truth[tuple(row)] for row in images.values.tolist()]


def test_parts_keep_their_order(tmp_path):
    splits = load_data(save_parts(tmp_path))
    for images, rows in zip(splits, PARTS.values(), strict=True):
        np.testing.assert_array_equal(
            images.values.numpy(), numbered()[rows].reshape(len(images), -1)
        )


def test_parts_without_validation_lend_a_tenth_of_training(tmp_path):
    np.savez(tmp_path / "x.npz", train=numbered()[:40], test=numbered()[40:])
    assert [len(images) for images in load_data(tmp_path / "x.npz")] == [36, 4, 20]


def test_a_folder_is_read_in_the_order_of_its_names(tmp_path, monkeypatch):
    rows = rows_of(load_data(save_images(tmp_path)))
    found = list(tmp_path.rglob("*"))
    for order in (sorted(found), sorted(found, reverse=True)):  # file systems list as they like
        monkeypatch.setattr(Path, "rglob", lambda self, pattern, order=order: iter(order))
        assert rows_of(load_data(tmp_path)) == rows


def test_a_folder_of_colour_images(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (5, 3, 4, 3), dtype=np.uint8)
    for index, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f"{index}.png")
    splits = load_data(tmp_path)
    assert splits.train.shape == (3, 3, 4)
    assert sorted(rows_of(splits)) == sorted(
        map(tuple, images.transpose(0, 3, 1, 2).reshape(5, -1).tolist())
    )


@pytest.mark.parametrize(
    ("size", "count"), [(0, 0), (1, 1), (0.5, 748), (0.0, 0), (1496, 1496), (None, 200)]
)
def test_validation_size(size, count):
    splits = load_data("digits", validation_size=size)
    assert [len(images) for images in splits] == [1497 - count, count, 300]
    assert splits.validation.all().shape == (count, 64)


def test_digits_are_exact_counts():
    train = load_data("digits").train
    assert (train.pixels, train.levels, train.shape, train.values.dtype) == (
        Pixels.COUNTS,
        16,
        (1, 8, 8),
        torch.uint8,
    )
    assert set(train.all().unique().tolist()) == set(range(17))


def test_mnist():
    root = os.environ.get("PYRO_VAE_DATA")
    if root is None:
        pytest.skip("set PYRO_VAE_DATA to a folder with torchvision's MNIST")
    splits = load_data("mnist", root)
    assert [len(images) for images in splits] == [55_000, 5_000, 10_000]
    assert [len(images) for images in load_data("mnist", root, validation_size=0)] == [
        60_000,
        0,
        10_000,
    ]
    grey = load_data("mnist", root, pixels="grey", validation_size=0)
    # the means of the two parts, as widely used to normalise them, and of our draw: the standard
    # error is at most 0.5 / sqrt(N D)
    assert grey.train.mean().mean().item() == pytest.approx(0.1307, abs=5e-5)
    assert grey.test.mean().mean().item() == pytest.approx(0.1325, abs=5e-5)
    assert splits.test.all().mean().item() == pytest.approx(
        grey.test.mean().mean().item(), abs=4.5 * 0.5 / 7_840_000**0.5
    )


# what is refused


def write(path, data=b"\x89PNG no image"):
    path.write_bytes(data)
    return path.parent


def npz(folder, **arrays):
    np.savez(folder / "x.npz", **arrays)
    return folder / "x.npz"


def npy(folder, array):
    np.save(folder / "x.npy", array)
    return folder / "x.npy"


def pngs(folder, *shapes):
    for index, shape in enumerate(shapes):
        Image.fromarray(np.zeros(shape, np.uint8)).save(folder / f"{index}.png")
    return folder


def truncated_mnist(folder):
    fake(folder, "MNIST")
    path = folder / "MNIST" / "raw" / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:1000])
    return folder


def truncated_npz(folder):
    path = npz(folder, x=np.random.default_rng(0).integers(0, 256, (50, 28, 28)))
    path.write_bytes(path.read_bytes()[:2000])
    return path


def corrupt_npz(folder):
    np.savez_compressed(folder / "x.npz", x=numbered())
    data = bytearray((folder / "x.npz").read_bytes())
    data[80:120] = bytes(40)
    (folder / "x.npz").write_bytes(data)
    return folder / "x.npz"


OBJECTS = np.array([{"a": 1}], dtype=object)
U8 = torch.zeros(4, 6, dtype=torch.uint8)
SHAPE = (1, 2, 3)

ERRORS = {
    "unknown name": (
        lambda t: load_data("mnits"),
        ValueError,
        "one of digits, mnist, .*, or a folder of images, got 'mnits'",
    ),
    "unknown kind": (
        lambda t: load_data("digits", pixels="gray"),
        ValueError,
        "one of static, dynamic, .*8bit, got 'gray'",
    ),
    "no data folder": (
        lambda t: load_data("mnist", t / "no"),
        FileNotFoundError,
        r"'mnist'.*under the folder '.*no'.*--download",
    ),
    "default data folder": (
        lambda t: load_data("kmnist", pixels="grey"),
        FileNotFoundError,
        "under the folder 'data'",
    ),
    "no array": (
        lambda t: load_data(t / "x.npy"),
        FileNotFoundError,
        r"x\.npy', which does not exist",
    ),
    "no folder": (
        lambda t: load_data(t / "images"),
        FileNotFoundError,
        "a folder of images, got '.*images', which does not exist",
    ),
    "other file": (
        lambda t: load_data(write(t / "x.png") / "x.png"),
        ValueError,
        r"or a folder of images, got '.*x\.png'",
    ),
    "empty folder": (lambda t: load_data(t), ValueError, "images .* in the folder .*, got none"),
    "unreadable image": (
        lambda t: load_data(write(t / "bad.png")),
        ValueError,
        r"readable grey or RGB image, got '.*bad\.png'",
    ),
    "truncated image": (
        lambda t: load_data(write(t / "bad.bmp", b"BM1")),
        ValueError,
        r"readable grey or RGB image, got '.*bad\.bmp'",
    ),
    "transparent image": (
        lambda t: load_data(pngs(t, (4, 4, 4))),
        ValueError,
        r"'.*0\.png': its mode is RGBA",
    ),
    "two sizes": (
        lambda t: load_data(pngs(t, (4, 5), (4, 6))),
        ValueError,
        r"one size, got \(4, 5\) in '.*0\.png' and \(4, 6\) in '.*1\.png'",
    ),
    "grey and colour": (
        lambda t: load_data(pngs(t, (4, 5), (4, 5, 3))),
        ValueError,
        r"one size, got \(4, 5\) .* and \(4, 5, 3\)",
    ),
    "truncated mnist": (
        lambda t: load_data("mnist", truncated_mnist(t)),
        ValueError,
        "readable files of 'mnist' under",
    ),
    "truncated npz": (lambda t: load_data(truncated_npz(t)), ValueError, r"x\.npz"),
    "corrupt npz": (lambda t: load_data(corrupt_npz(t)), ValueError, r"x\.npz"),
    "not an npy": (
        lambda t: load_data(write(t / "x.npy") / "x.npy"),
        ValueError,
        "readable array file without pickled objects",
    ),
    "not an npz": (
        lambda t: load_data(write(t / "x.npz", b"PK\x03\x04") / "x.npz"),
        ValueError,
        "readable array file without pickled objects",
    ),
    "pickled npy": (lambda t: load_data(npy(t, OBJECTS)), ValueError, "without pickled objects"),
    "pickled npz": (lambda t: load_data(npz(t, x=OBJECTS)), ValueError, "without pickled objects"),
    "npz names": (
        lambda t: load_data(npz(t, images=X)),
        ValueError,
        r"named x \(and y\), or train, test .* got \['images'\]",
    ),
    "npz shapes": (
        lambda t: load_data(npz(t, train=X[:, None], test=X.reshape(12, 2))),
        ValueError,
        "one shape .* got .*train",
    ),
    "labels count": (
        lambda t: load_data(npz(t, x=numbered(), y=X)),
        ValueError,
        r"one label for each of 60 images, .*\(24,\)",
    ),
    "labels type": (
        lambda t: load_data(npz(t, x=numbered(), y=np.ones(60))),
        TypeError,
        "integer labels, got float64",
    ),
    "array of one axis": (
        lambda t: load_data(npy(t, X)),
        ValueError,
        r"images of shape \(N, D\).* got \(24,\)",
    ),
    "array of two channels": (
        lambda t: from_array(X.reshape(1, 2, 3, 4)),
        ValueError,
        r"C = 1 or 3.* got \(1, 2, 3, 4\)",
    ),
    "no images": (
        lambda t: from_array(np.zeros((0, 4, 4))),
        ValueError,
        r"at least one, got \(0, 1, 4, 4\)",
    ),
    "complex": (
        lambda t: from_array(np.ones((2, 4), complex)),
        TypeError,
        "bool, integers or floats, got complex128",
    ),
    "NaN": (
        lambda t: from_array(np.array([[0.5, np.nan]])),
        ValueError,
        r"float64 pixels in \[0, 1\], got values in \[nan, nan\]",
    ),
    "floats in 0..255": (
        lambda t: from_array(RAMP.astype(float)),
        ValueError,
        r"in \[0, 1\], got values in \[0, 255\]",
    ),
    "negative": (
        lambda t: from_array(-numbered()),
        ValueError,
        r"int64 pixels in \[0, 255\], got values in \[-250, 0\]",
    ),
    "floats as counts": (
        lambda t: load_data(npy(t, FLOATS), pixels="counts"),
        ValueError,
        "integer values for counts pixels",
    ),
    "digits as 8bit": (
        lambda t: load_data("digits", pixels="8bit"),
        ValueError,
        r"levels 0\.\.255 for 8bit pixels, got 0\.\.16",
    ),
    "binary as dynamic": (
        lambda t: load_data(npy(t, numbered() > 9), pixels="dynamic"),
        ValueError,
        "make dynamic pixels of, got binary",
    ),
    "negative validation": (
        lambda t: load_data("digits", validation_size=-1),
        ValueError,
        "0 to 1496 images, or a fraction .* got -1",
    ),
    "negative fraction": (
        lambda t: load_data("digits", validation_size=-0.1),
        ValueError,
        "got -0.1",
    ),
    "fraction of all": (
        lambda t: load_data("digits", validation_size=1.0),
        ValueError,
        "leaves one to train on, got 1.0",
    ),
    "all for validation": (
        lambda t: load_data("digits", validation_size=1497),
        ValueError,
        "0 to 1496 images",
    ),
    "fractional count": (lambda t: load_data("digits", validation_size=2.5), ValueError, "got 2.5"),
    "one image": (
        lambda t: load_data(npy(t, numbered(1))),
        ValueError,
        "at least 2 images, one to train",
    ),
    "values dtype": (
        lambda t: Images(U8.double(), SHAPE, Pixels.GREY, 1),
        TypeError,
        "torch.uint8 or torch.float32, got torch.float64",
    ),
    "values shape": (
        lambda t: Images(U8, (1, 2, 2), Pixels.GREY, 255),
        ValueError,
        r"\(C, H, W\) = \(1, 2, 2\), got \(4, 6\)",
    ),
    "no levels": (
        lambda t: Images(U8, SHAPE, Pixels.GREY, 0),
        ValueError,
        r"levels in 1\.\.255 for torch.uint8 values, got 0",
    ),
    "float levels": (
        lambda t: Images(U8.float(), SHAPE, Pixels.GREY, 255),
        ValueError,
        r"levels in 1\.\.1",
    ),
    "beyond levels": (
        lambda t: Images(U8 + 17, SHAPE, Pixels.COUNTS, 16),
        ValueError,
        r"values in \[0, 16\], got values in \[17, 17\]",
    ),
    "grey as static": (
        lambda t: Images(U8, SHAPE, Pixels.STATIC, 255),
        ValueError,
        "values 0 and 1 for static pixels",
    ),
    "NaN values": (
        lambda t: Images(U8 + torch.nan, SHAPE, Pixels.GREY, 1),
        ValueError,
        "got values in .*nan",
    ),
    "mean of nothing": (
        lambda t: Images(U8[:0], SHAPE, Pixels.GREY, 255).mean(),
        ValueError,
        "at least one image",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_say_what_was_expected(name, tmp_path, monkeypatch):
    call, error, message = ERRORS[name]
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message) as caught:
        call(tmp_path)
    assert str(caught.value).startswith("expected ")


def test_loading_runs_no_code(tmp_path):
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    for path in (
        npy(tmp_path, np.array([Trap()], object)),
        npz(tmp_path, x=np.array([Trap()], object)),
    ):
        with pytest.raises(ValueError, match="without pickled objects"):
            load_data(path)
    assert not (tmp_path / "ran").exists()


def fresh(code: str) -> str:
    """Run code in a fresh interpreter."""
    result = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", code],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_slow_libraries_are_imported_only_where_needed():
    code = """
import sys, pyro_vae
def imported(*names): return [name for name in names if name in sys.modules]
slow = imported("matplotlib", "scipy", "sklearn", "torchvision")
pyro_vae.load_data("digits")
print(slow, imported("torchvision"))
"""
    assert fresh(code) == "[] []"


@pytest.mark.parametrize(
    "failure", [ImportError("no module"), RuntimeError("operator torchvision::nms does not exist")]
)
def test_a_torchvision_that_fails_is_explained(monkeypatch, failure):
    class Broken:
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] == "torchvision":
                raise failure

    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    with pytest.raises(
        ImportError,
        match=r"^expected a torchvision that fits torch .* the data set 'mnist', got .*'digits'",
    ):
        load_data("mnist")
    assert len(load_data("digits").train)


def test_names_are_what_load_knows():
    with pytest.raises(ValueError, match="expected one of " + ", ".join(NAMES)):
        load_data("no such set")


def test_pictures_of_one_bit_are_binary(tmp_path):
    bits = numbered(20) % 2
    for index, image in enumerate(bits):
        Image.fromarray(image.astype(bool)).save(tmp_path / f"{index:03d}.png")
    images = read_folder(tmp_path)
    assert (images.pixels, images.levels) == (Pixels.STATIC, 1)
    np.testing.assert_array_equal(images.all().numpy(), bits.reshape(20, -1))
    Image.fromarray(np.full((3, 4), 7, np.uint8)).save(tmp_path / "grey.png")
    assert read_folder(tmp_path).pixels == Pixels.BYTES


@pytest.mark.parametrize(("mode", "kind"), [("RGBA", np.uint8), ("I;16", np.uint16)])
def test_pictures_of_other_kinds_say_how_to_convert(tmp_path, mode, kind):
    shape = (3, 4, 4) if mode == "RGBA" else (3, 4)
    Image.fromarray(np.ones(shape, kind)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=rf"a.png': its mode is {mode}.* convert it, for example "):
        read_folder(tmp_path)


def test_classes_of_a_folder_have_names(tmp_path):
    for name in ("cat", "ape"):
        (tmp_path / name).mkdir()
        for i in range(3):
            Image.new("L", (2, 2)).save(tmp_path / name / f"{i}.png")
    train = load_data(tmp_path).train
    assert train.classes == ("ape", "cat")
    Image.new("L", (2, 2)).save(tmp_path / "one.png")  # in no class
    assert load_data(tmp_path).train.classes == ()


@pytest.mark.parametrize(("count", "sizes"), [(2, (1, 0, 1)), (3, (1, 1, 1)), (4, (2, 1, 1))])
def test_splits_of_few_images(count, sizes, tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((count, 4, 4), np.uint8))
    assert tuple(map(len, load_data(tmp_path / "x.npy"))) == sizes


def test_one_image_is_no_data_set(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((1, 4, 4), np.uint8))
    with pytest.raises(ValueError, match="at least 2 images, one to train and one to test on, got"):
        load_data(tmp_path / "x.npy")


def test_pictures_are_told_by_their_content_not_their_name(tmp_path):
    Image.fromarray(np.full((2, 2), 7, np.uint8)).save(tmp_path / "png.jpg", "PNG")
    assert read_folder(tmp_path).all().tolist() == [[7.0] * 4]
