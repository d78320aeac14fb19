"""Figures hold what they were given: pictures at their places, points at their coordinates."""

import math

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import nn

from pyro_vae import VAE, DiagonalNormal, StandardNormal, mlp
from pyro_vae.families.normal import Normal
from pyro_vae.plots import panels as plots
from pyro_vae.training.metrics import Record

SHAPE = (1, 3, 4)


class ToUnit(nn.Module):
    """A decoder whose pixels are Phi(z1), Phi(z2), so that a picture tells where it was decoded."""

    def forward(self, z):
        return torch.special.ndtr(z)


def a_vae(latent_dim=2, shape=SHAPE):
    torch.manual_seed(0)
    D = math.prod(shape)
    decoder = nn.Sequential(mlp(latent_dim, 8, D), nn.BatchNorm1d(D), nn.Sigmoid())
    return VAE(
        StandardNormal(latent_dim), Normal(decoder), DiagonalNormal(mlp(D, 8, 2 * latent_dim))
    )


def a_record(epoch, validation=True):
    held_out = (-1.5 / epoch, -1.0 / epoch, 0.5 / epoch, 2) if validation else (None,) * 4
    return Record(
        epoch,
        10 * epoch,
        1.0 / epoch,
        -1.0 / epoch,
        -0.7 / epoch,
        0.3 / epoch,
        *held_out,
        1.0,
        1e-3,
        0.1,
    )


def x_of(n, shape=SHAPE):
    return torch.rand(n, math.prod(shape), generator=torch.Generator().manual_seed(1))


FIGURES = {
    "images": lambda vae: plots.images(x_of(5), SHAPE),
    "samples": lambda vae: plots.samples(vae, SHAPE, 7),
    "draws": lambda vae: plots.samples(vae, SHAPE, 7, mean=False),
    "reconstructions": lambda vae: plots.reconstructions(vae, x_of(5), SHAPE, columns=3),
    "interpolations": lambda vae: plots.interpolations(vae, x_of(3), x_of(3).flip(0), SHAPE),
    "manifold": lambda vae: plots.manifold(vae, SHAPE, n=5),
    "traversal": lambda vae: plots.traversal(vae, x_of(1)[0], SHAPE),
    "latent_scatter": lambda vae: plots.latent_scatter(vae.encode(x_of(30)), torch.arange(30) % 3),
    "curves": lambda vae: plots.curves([a_record(epoch) for epoch in range(1, 30)]),
}


def tile(figure, row, column, shape=SHAPE, gap=plots.GAP):
    """The picture at a place of the grid, (H, W, 3)."""
    mosaic = np.asarray(figure.axes[0].images[0].get_array())
    top, left = (gap + i * (side + gap) for i, side in zip((row, column), shape[1:], strict=True))
    return torch.tensor(mosaic[top : top + shape[1], left : left + shape[2]])


def shown(x, shape=SHAPE, peak=1.0):
    """How a picture (D,) is to be seen."""
    return (x.detach().view(shape) / peak).clamp(0, 1).expand(3, *shape[1:]).movedim(0, -1)


@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_saved_and_leave_nothing_behind(name, tmp_path):
    vae = a_vae()
    vae.train()
    state = {key: value.clone() for key, value in vae.state_dict().items()}
    parameters = dict(mpl.rcParams)
    figure = FIGURES[name](vae)
    assert isinstance(figure, Figure)
    path = plots.save(figure, tmp_path / "new" / "figure.png")
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"))
    assert tuple(pixels.shape[1::-1]) == pytest.approx(tuple(figure.get_size_inches() * 100), abs=1)
    assert pixels.std() > 1  # something is to be seen
    assert [p.name for p in path.parent.iterdir()] == ["figure.png"]
    assert path.stat().st_size < 100_000
    assert dict(mpl.rcParams) == parameters
    assert all(module.training for module in vae.modules())
    torch.testing.assert_close(dict(vae.state_dict()), state, rtol=0, atol=0)


@pytest.mark.parametrize("shape", [(1, 3, 4), (3, 4, 4)])
@pytest.mark.parametrize("peak", [1.0, 16.0, 255.0])
def test_images_at_their_places(shape, peak):
    x = peak * x_of(5, shape)
    figure = plots.images(x, shape, columns=3, peak=peak, title="five")
    assert figure.axes[0].get_title() == "five"
    for i in range(5):
        torch.testing.assert_close(tile(figure, i // 3, i % 3, shape), shown(x[i], shape, peak))
    assert (tile(figure, 1, 2, shape) == torch.tensor(plots.GAP_GREY)).all()  # there is no sixth


def test_values_out_of_range_are_clipped():
    figure = plots.images(torch.tensor([[-1.0, 2.0]]), (1, 1, 2))
    assert tile(figure, 0, 0, (1, 1, 2))[0, :, 0].tolist() == [0.0, 1.0]


def test_every_pixel_is_a_square_of_whole_screen_pixels():
    figure = plots.images(x_of(9), SHAPE, title="nine")
    mosaic = figure.axes[0].images[0].get_array()
    width, height = figure.axes[0].get_position().size * figure.get_size_inches() * 100
    assert width / mosaic.shape[1] == pytest.approx(height / mosaic.shape[0])
    assert width / mosaic.shape[1] == pytest.approx(round(width / mosaic.shape[1]))


@pytest.mark.parametrize("mean", [True, False])
def test_samples(mean):
    vae = a_vae().eval()
    torch.manual_seed(1)
    x = vae.sample(4, mean=mean)
    torch.manual_seed(1)
    figure = plots.samples(vae, SHAPE, 4, mean=mean)
    for i in range(4):
        torch.testing.assert_close(tile(figure, i // 2, i % 2), shown(x[i]))


def test_reconstructions_below_their_originals():
    vae, x = a_vae().eval(), x_of(5)
    figure, again = plots.reconstructions(vae, x, SHAPE, columns=3), vae.reconstruct(x)
    for i in range(5):
        torch.testing.assert_close(tile(figure, i // 3 * 2, i % 3), shown(x[i]))
        torch.testing.assert_close(tile(figure, i // 3 * 2 + 1, i % 3), shown(again[i]))


def test_interpolations():
    vae, a, b = a_vae().eval(), x_of(3), x_of(3).flip(0)
    figure = plots.interpolations(vae, a, b, SHAPE, n=5)
    middle = vae.decoder((vae.encode(a) + vae.encode(b)) / 2).mean
    for row in range(3):
        expected = {0: a, 1: vae.reconstruct(a), 3: middle, 5: vae.reconstruct(b), 6: b}
        for column, x in expected.items():
            torch.testing.assert_close(tile(figure, row, column), shown(x[row]))


def test_manifold_on_quantiles():
    vae = VAE(StandardNormal(2), Normal(ToUnit()), DiagonalNormal(mlp(2, 4)))
    figure = plots.manifold(vae, (1, 1, 2), n=4)
    for row in range(4):
        for column in range(4):
            left, right = tile(figure, row, column, (1, 1, 2), gap=0)[0, :, 0].tolist()
            assert left == pytest.approx((column + 0.5) / 4, abs=1e-5)  # z1 grows to the right
            assert right == pytest.approx((3 - row + 0.5) / 4, abs=1e-5)  # z2 grows upwards
    lowest = torch.special.ndtri(torch.tensor(0.125))
    assert (
        figure.axes[0].get_xticklabels()[0].get_text()
        == figure.axes[0].get_yticklabels()[0].get_text()
        == f"{lowest:.1f}"
    )


def test_traversal_moves_one_latent_a_row():
    vae = VAE(StandardNormal(2), Normal(ToUnit()), DiagonalNormal(mlp(2, 4)))
    x = torch.tensor([0.2, 0.9])
    centre = torch.special.ndtr(vae.encode(x[None])[0])
    figure = plots.traversal(vae, x, (1, 1, 2), dims=[1, 0], n=3, span=2.0)
    for row, dim in enumerate([1, 0]):
        pixels = torch.stack([tile(figure, row, column, (1, 1, 2))[0, :, 0] for column in range(3)])
        torch.testing.assert_close(
            pixels[:, dim], torch.special.ndtr(torch.tensor([-2.0, 0.0, 2.0]))
        )
        torch.testing.assert_close(pixels[:, 1 - dim], centre[1 - dim].expand(3))


def test_scatter_of_two_dimensions_shows_the_points_by_class():
    means, labels = (
        torch.randn(30, 2, generator=torch.Generator().manual_seed(0)),
        torch.arange(30) % 3,
    )
    axes = plots.latent_scatter(means, labels).axes[0]
    for label, collection in enumerate(axes.collections):
        np.testing.assert_allclose(
            np.asarray(collection.get_offsets()), means[labels == label].numpy()
        )
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["0", "1", "2"]
    assert len({tuple(collection.get_facecolor()[0]) for collection in axes.collections}) == 3


def test_scatter_names_the_classes():
    labels = torch.tensor([0, 1, 3, 0, 1, 3])
    axes = plots.latent_scatter(torch.randn(6, 2), labels, classes=("ape", "bee", "cat")).axes[0]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["ape", "bee", "3"]


def test_scatter_of_more_dimensions_shows_principal_components():
    means = torch.randn(50, 5, generator=torch.Generator().manual_seed(0)) * torch.tensor(
        [1.0, 5.0, 2.0, 0.1, 0.1]
    )
    (collection,) = plots.latent_scatter(means).axes[0].collections
    points = torch.tensor(np.asarray(collection.get_offsets()), dtype=torch.float32)
    u, s, _ = torch.linalg.svd(means - means.mean(0), full_matrices=False)
    torch.testing.assert_close(points.abs(), (u * s)[:, :2].abs(), atol=1e-4, rtol=1e-4)


def test_curves_show_the_records():
    records = [a_record(epoch) for epoch in range(1, 31)]
    for axes, name in zip(
        plots.curves(records).axes, ("elbo", "log_likelihood", "kl"), strict=True
    ):
        for line, split in zip(axes.lines, ("train", "validation"), strict=True):
            assert line.get_label() == split
            np.testing.assert_allclose(
                line.get_xydata(), [(r.epoch, getattr(r, f"{split}_{name}")) for r in records]
            )


@pytest.mark.parametrize("count", [1, 2, 3, 30])
def test_epochs_on_the_axis_are_whole_numbers(count):
    for axes in plots.curves([a_record(epoch) for epoch in range(1, count + 1)]).axes:
        ticks = axes.get_xticks()
        assert len(ticks)
        assert (ticks == ticks.round()).all()


def test_curves_without_validation_or_likelihood():
    figure = plots.curves([a_record(1, validation=False), a_record(2, validation=False)])
    assert [[line.get_label() for line in axes.lines] for axes in figure.axes] == [["train"]] * 3


ERRORS = {
    "wrong size": (
        lambda: plots.images(torch.rand(3, 5), SHAPE),
        "expected pictures of shape .B, 12. for .1, 3, 4., got .3, 5.",
    ),
    "no pictures": (lambda: plots.images(torch.rand(0, 12), SHAPE), "got .0, 12."),
    "two channels": (
        lambda: plots.images(torch.rand(3, 8), (2, 2, 2)),
        "1 or 3 channels, got .2, 2, 2.",
    ),
    "manifold of three": (
        lambda: plots.manifold(a_vae(3), SHAPE),
        "expected a latent space of 2 dimensions for a manifold, got 3",
    ),
    "scatter of one": (
        lambda: plots.latent_scatter(torch.rand(3, 1)),
        "D of at least 2, got .3, 1.",
    ),
    "labels": (
        lambda: plots.latent_scatter(torch.rand(3, 2), torch.arange(4)),
        "one label for each of 3 means, got",
    ),
    "ends": (
        lambda: plots.interpolations(a_vae(), x_of(2), x_of(3), SHAPE),
        "as many data at both ends",
    ),
    "no records": (lambda: plots.curves([]), "at least one record, got none"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name):
    call, message = ERRORS[name]
    with pytest.raises(ValueError, match=message):
        call()
