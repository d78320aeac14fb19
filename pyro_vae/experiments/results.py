"""What a trained pair is worth: its numbers, the sentence that reports them, its figures."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from ..data.images import Images
from ..evaluation.latents import latent_means
from ..evaluation.report import evaluate
from ..models.vae import VAE
from ..plots.panels import (
    curves,
    interpolations,
    latent_scatter,
    manifold,
    reconstructions,
    samples,
    save,
)
from ..training.epoch import seeded
from .choices import peak
from .config import Config
from .storage import FIGURES, history


def judge(
    config: Config, vae: VAE, images: Images, num_samples: int, *, progress: bool = False
) -> dict[str, Any]:
    """Evaluate a pair on images: the facts of :func:`about`, then the numbers of ``evaluate``.

    The names are explained in :data:`pyro_vae.experiments.glossary.GLOSSARY`.
    """
    with seeded(config.seed):
        result = evaluate(
            vae.model,
            vae.guide,
            images.all(),
            num_samples=num_samples,
            compile=config.compile,
            kl_draws=0,
            progress=progress,
        )
    return {**about(config, images), **result.summary()}


def about(config: Config, images: Images) -> dict[str, Any]:
    """What a number must never be without: the data set, what is observed of it, the seeds."""
    return {
        "dataset": config.dataset,
        "pixels": str(images.pixels),
        "data_seed": config.data_seed,
        "seed": config.seed,
        "unit": unit(images),
    }


def unit(images: Images) -> str:
    """What one datum is called: rows of a table are no images.

    >>> from pyro_vae.data.splits import load_data
    >>> unit(load_data("digits").test)
    'image'
    """
    return "datum" if images.shape[:2] == (1, 1) else "image"


def sentence(result: Mapping[str, Any], split: str = "test") -> str:
    """A result of :func:`judge` in one sentence; the error is the standard error over the data."""
    error = result["log_px_data_error"]
    known = "" if error is None or error != error else f" +- {error:.2f}"
    name = result["unit"]
    plural = "data" if name == "datum" else "images"
    counted = f"{result['num_data']} {name if result['num_data'] == 1 else plural}"
    return (
        f"{split} ELBO {result['elbo']:.2f}, log p(x) {result['log_px']:.2f}{known} nats per {name}"
        f" ({counted}, {result['num_samples']} importance samples; {result['pixels']} pixels, "
        f"data seed {result['data_seed']}; seed {result['seed']})"
    )


def draw_figures(folder: Path, vae: VAE, images: Images, seed: int = 0) -> None:
    """Draw into the run's folder ``figures``: the curves, and what the pair makes of some images.

    A figure that needs more images than there are is left out.
    """
    drawings = _drawings(folder, vae, images)
    with seeded(seed):
        for name, drawing in drawings.items():
            save(drawing(), folder / FIGURES / f"{name}.png")


def _drawings(folder: Path, vae: VAE, images: Images) -> dict[str, Callable[[], Figure]]:
    """The figures that these images and this latent space allow."""
    shape = images.shape
    top = peak(images)
    few = images.batch(torch.linspace(0, len(images) - 1, min(40, len(images))).long())
    half = len(few) // 2
    means = latent_means(vae.guide, images.all())
    drawings: dict[str, Callable[[], Figure]] = {
        "curves": lambda: curves(history(folder)),
        "samples": lambda: samples(vae, shape, peak=top),
        "reconstructions": lambda: reconstructions(vae, few, shape, peak=top),
    }
    if half:
        ends = few[:half][:8], few[half : 2 * half][:8]
        drawings["interpolations"] = lambda: interpolations(vae, *ends, shape, peak=top)
    if means.shape[1] > 1 and len(means) > 1:
        drawings["latents"] = lambda: latent_scatter(means, images.labels, classes=images.classes)
    if means.shape[1] == 2:
        drawings["manifold"] = lambda: manifold(vae, shape, peak=top)
    return drawings
