"""What is built from a configuration: every name of every table builds, trains and comes back."""

import json
import math
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch

from pyro_vae import DiagonalNormal, StandardNormal, TraceMeanField_ELBO, mlp
from pyro_vae.data.images import Images, Pixels
from pyro_vae.experiments import choices as experiment
from pyro_vae.experiments.build import build_svi, build_vae, choose_device, load_splits
from pyro_vae.experiments.choices import fitting_likelihoods, peak
from pyro_vae.experiments.command_line import parse
from pyro_vae.experiments.config import Config
from pyro_vae.experiments.presets import PRESETS
from pyro_vae.experiments.results import judge
from pyro_vae.experiments.storage import MAY_DIFFER, check_resumable, load_config, save_config
from pyro_vae.families.normal import Normal
from pyro_vae.models.vae import VAE

TINY = Config(max_images=40, hidden=(8,), latent_dim=3, batch_size=20)

NATURAL = {
    "static": "bernoulli",
    "dynamic": "bernoulli",
    "threshold": "bernoulli",
    "grey": "continuous_bernoulli",
    "counts": "binomial",
    "8bit": "discretized_logistic",
}


def some_images(pixels, shape=(1, 8, 8), top=255):
    values = torch.rand(40, math.prod(shape), generator=torch.Generator().manual_seed(0)) * (
        top + 1
    )
    return Images(values.to(torch.uint8), shape, Pixels.BYTES, 255).as_pixels(pixels)


def a_step(config, images):
    """Build, take a step, and return what was built with the step's loss per datum."""
    torch.manual_seed(0)
    vae = build_vae(config, images)
    svi, scheduler = build_svi(config, vae, len(images))
    before = [p.detach().clone() for p in vae.parameters()]
    loss = svi.step(images.batch(torch.arange(20))) / 20
    scheduler.step()
    assert loss.isfinite()
    assert all(not torch.equal(p, old) for p, old in zip(vae.parameters(), before, strict=True))
    return vae, svi


CHOICES = {
    "architecture": experiment.ENCODERS,
    "activation": experiment.ACTIVATIONS,
    "guide": experiment.GUIDES,
    "prior": experiment.PRIORS,
    "objective": experiment.OBJECTIVES,
    "optimiser": experiment.OPTIMISERS,
    "lr_schedule": experiment.LR_SCHEDULES,
}


GOES_WITH = {
    "power_spherical": {"prior": "sphere"},
    "von_mises_fisher": {"prior": "sphere"},
    "sphere": {"guide": "power_spherical"},
}


@pytest.mark.parametrize(
    ("option", "name"), [(option, name) for option, table in CHOICES.items() for name in table]
)
def test_every_name_trains(option, name):
    a_step(replace(TINY, **{option: name}, **GOES_WITH.get(name, {})), load_splits(TINY).train)


def test_spheres_go_with_spheres():
    for choice in ({"guide": "power_spherical"}, {"prior": "sphere"}):
        with pytest.raises(
            ValueError,
            match="expected guide power_spherical or von_mises_fisher with prior sphere, got guide",
        ):
            build_vae(replace(TINY, **choice), load_splits(TINY).train)


@pytest.mark.parametrize(
    "objective", ["iwae", "dreg", "stl", "renyi", "wake_sleep", "free_bits", "infovae"]
)
def test_objectives_that_weigh_no_kl_refuse_beta(objective):
    for choice in ({"beta": 0.5}, {"annealing": "linear"}):
        config = replace(TINY, objective=objective, **choice)
        with pytest.raises(
            ValueError,
            match=f"expected beta 1 and no annealing for objective {objective}, which weighs no KL",
        ):
            build_svi(config, build_vae(config, load_splits(config).train), num_data=40)


@pytest.mark.parametrize("objective", ["free_bits", "infovae"])
def test_objectives_of_one_draw_refuse_more(objective):
    config = replace(TINY, objective=objective, num_particles=3)
    with pytest.raises(
        ValueError, match=f"expected num_particles 1 for objective {objective}, got 3"
    ):
        build_svi(config, build_vae(config, load_splits(config).train), num_data=40)


ANNEALED = {
    "none": lambda step: 0.5,
    "linear": lambda step: 0.5 * min(step / 8, 1),
    "cyclical": lambda step: 0.5 * min(step % 8 / 4, 1),
}


@pytest.mark.parametrize("annealing", experiment.ANNEALING)
def test_annealing_is_counted_in_epochs(annealing):
    config = replace(TINY, annealing=annealing, annealing_epochs=4, beta=0.5)  # of two steps each
    svi, _ = build_svi(config, build_vae(config, load_splits(config).train), num_data=40)
    for step in range(20):
        assert svi.objective.at(step).beta == ANNEALED[annealing](step)


def test_encoders_and_decoders_have_the_same_names():
    assert experiment.ENCODERS.keys() == experiment.DECODERS.keys()


@pytest.mark.parametrize("architecture", experiment.ENCODERS)
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 9, 8)])
@pytest.mark.parametrize("pixels", NATURAL)
@pytest.mark.parametrize("likelihood", experiment.LIKELIHOODS)
def test_likelihoods_train_on_their_pixels_and_refuse_others(
    architecture, shape, pixels, likelihood
):
    config, images = (
        replace(TINY, architecture=architecture, likelihood=likelihood),
        some_images(pixels, shape),
    )
    own = experiment.LIKELIHOODS[likelihood].family.pixels
    if pixels in own:
        vae, _ = a_step(config, images)
        assert vae.sample(2).shape == (2, math.prod(shape))
    else:
        with pytest.raises(
            ValueError,
            match=f"of {pixels} pixels .*{NATURAL[pixels]}.*, got {likelihood}, which is one of",
        ):
            build_vae(config, images)


@pytest.mark.parametrize("pixels", NATURAL)
def test_the_natural_likelihood(pixels):
    images = some_images(pixels)
    assert fitting_likelihoods(images)[0] == NATURAL[pixels]
    family = experiment.LIKELIHOODS[NATURAL[pixels]].family
    assert type(build_vae(TINY, images).decoder) is family


@pytest.mark.parametrize("pixels", NATURAL)
def test_encoders_see_pixels_between_0_and_1(pixels):
    images, seen = some_images(pixels), []
    vae = build_vae(TINY, images)
    vae.encoder.net[1].register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    vae.encode(images.all())
    assert seen[0].min() >= 0
    assert seen[0].max() == 1
    assert images.all().max() == peak(images)


@pytest.mark.parametrize("pixels", NATURAL)
def test_the_output_may_start_from_the_mean(pixels):
    images = some_images(pixels, top=torch.arange(1, 65) * 3.9)  # pixels of different means
    plain, started = (
        build_vae(replace(TINY, init_output_bias=flag), images).sample(200, mean=True).mean(0)
        for flag in (False, True)
    )
    truth = images.mean() * peak(images)
    error = (started - truth).abs().mean()
    assert error < 0.8 * (plain - truth).abs().mean()


def test_weights_depend_on_the_seed_alone():
    images = load_splits(TINY).train
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = build_vae(TINY, images).state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(6)
    torch.testing.assert_close(build_vae(TINY, images).state_dict(), first, rtol=0, atol=0)
    other = build_vae(replace(TINY, seed=1), images).state_dict()
    assert not torch.equal(other["decoder.net.0.weight"], first["decoder.net.0.weight"])


def test_the_test_images_do_not_depend_on_the_seed():
    first, second = (
        load_splits(replace(TINY, pixels="dynamic", seed=seed)).test.all() for seed in (0, 1)
    )
    assert torch.equal(first, second)
    assert not torch.equal(
        load_splits(replace(TINY, pixels="dynamic", data_seed=1)).test.all(), first
    )


def test_max_images():
    assert [len(images) for images in load_splits(replace(TINY, max_images=7))] == [7, 7, 7]


@pytest.mark.parametrize("name", PRESETS)
def test_presets_train_on_digits_too(name):
    """The whole of a preset but its data set."""
    config = replace(
        PRESETS[name], dataset="digits", max_images=40, pixels=PRESETS[name].pixels or "dynamic"
    )
    assert config.preset == name
    a_step(config, load_splits(config).train)


def test_defaults_are_the_classic_vae_but_for_the_data():
    same = {"preset", "dataset", "epochs"}
    r1, default = PRESETS["r1"], parse(["--dataset", "mnist", "--epochs", "10"])
    assert replace(default, preset="r1") == r1
    assert {
        field.name
        for field in fields(Config)
        if getattr(r1, field.name) != getattr(Config(), field.name)
    } == same
    vae = build_vae(r1, some_images("dynamic", (1, 28, 28)))
    encoder, decoder = 784 * 400 + 400 + 400 * 40 + 40, 20 * 400 + 400 + 400 * 784 + 784
    assert sum(p.numel() for p in vae.parameters()) == encoder + decoder


def test_mean_squared_error_plus_a_little_kl_is_the_elbo_of_a_very_noisy_normal():
    """1/D sum (x - f)^2 + c KL = 2 s^2 / D (-ELBO) + constant, with s^2 = c D / 2."""
    c, D = 0.0025, 784
    scale = math.sqrt(c * D / 2)
    torch.manual_seed(0)
    net, encoder, x = mlp(2, D), DiagonalNormal(mlp(D, 4)), torch.rand(1, D)
    vae = VAE(StandardNormal(2), Normal(net, scale), encoder)
    torch.manual_seed(1)
    estimate = TraceMeanField_ELBO().estimate(vae.model, vae.guide, x)
    torch.manual_seed(1)
    published = (x - net(encoder(x).rsample())).square().mean() + c * estimate.kl
    constant = D / 2 * math.log(2 * math.pi * scale**2)
    torch.testing.assert_close(2 * scale**2 / D * (estimate.loss - constant), published)


def test_the_schedule_of_the_importance_weighted_autoencoder():
    factors = [
        experiment.LR_SCHEDULES["burda"](Config(), epoch)
        for epoch in range(sum(3**i for i in range(8)))
    ]
    expected = [round(10 ** (1 - i / 7), 1) for i in range(8) for _ in range(3**i)]
    assert factors == expected


def test_cosine_falls_from_one_to_zero():
    config = replace(Config(), epochs=10)
    factors = [experiment.LR_SCHEDULES["cosine"](config, epoch) for epoch in range(11)]
    assert factors[0] == 1
    assert factors[10] == pytest.approx(0)
    assert factors == sorted(factors, reverse=True)


def test_devices():
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("auto").type in ("cpu", "cuda", "mps")


CONFIGS = {
    "default": Config(),
    **PRESETS,
    "full": replace(
        Config(),
        dataset="a/file.npy",
        data_dir=Path("data"),
        hidden=(3, 2),
        adam_betas=(0.5, 0.6),
        output_dir=Path("runs/x"),
        clip_norm=1.0,
        likelihood="normal",
        patience=3,
        max_images=4,
    ),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_configurations_come_back_from_json(name, tmp_path):
    save_config(CONFIGS[name], tmp_path / "config.json")
    assert load_config(tmp_path / "config.json") == CONFIGS[name]
    assert json.loads((tmp_path / "config.json").read_text()).keys() == {
        field.name for field in fields(Config)
    }


def changed(value):
    """Another value of the same kind."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    return (1, 2) if isinstance(value, tuple) else "other"


@pytest.mark.parametrize("name", [field.name for field in fields(Config)])
def test_a_resumed_run_may_differ_in_little(name):
    begun = Config()
    config = replace(begun, **{name: changed(getattr(begun, name))})
    if name in MAY_DIFFER:
        check_resumable(config, begun)
        assert config != begun
    else:
        with pytest.raises(
            ValueError, match=f"options of the run that is resumed, {name} = .*, got {name} = "
        ):
            check_resumable(config, begun)


def test_a_cosine_run_is_resumed_with_as_many_epochs():
    begun = replace(Config(), lr_schedule="cosine")
    check_resumable(replace(begun, device="cpu"), begun)
    with pytest.raises(ValueError, match="epochs = 200, got epochs = 300"):
        check_resumable(replace(begun, epochs=300), begun)


def test_judging_is_repeatable_and_leaves_the_random_state():
    images = load_splits(TINY).test
    vae = build_vae(TINY, images)
    state = torch.get_rng_state()
    first = judge(TINY, vae, images, 10)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(3)
    assert judge(TINY, vae, images, 10) == first
    assert judge(replace(TINY, seed=1), vae, images, 10) != first
    assert (first["num_data"], first["num_samples"], first["pixels"]) == (40, 10, "counts")
    assert first["elbo"] < first["log_px"]
    assert first["elbo"] == pytest.approx(-first["rate"] - first["distortion"])


def test_the_command_line_overrides_a_preset():
    config = parse(["--preset", "r3", "--latent-dim", "8", "--hidden", "5", "6", "--no-progress"])
    assert config == replace(PRESETS["r3"], latent_dim=8, hidden=(5, 6), progress=False)
    assert parse(["--latent-dim", "8", "--preset=r3"]) == replace(PRESETS["r3"], latent_dim=8)


def test_the_command_line_begins_where_the_resumed_run_began(tmp_path):
    save_config(replace(PRESETS["r2"], lr=0.5), tmp_path / "config.json")
    config = parse(["--resume", str(tmp_path), "--epochs", "99"])
    assert config == replace(PRESETS["r2"], lr=0.5, resume=tmp_path, epochs=99)
