"""Evaluate a run: the ELBO, its terms and the importance-weighted log p(x), with error bars, as a table, as JSON and as figures."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro
from rich.console import Console
from rich.table import Table

from pyro_vae.data.images import Images
from pyro_vae.evaluation import estimators as weights
from pyro_vae.evaluation.ais import AIS
from pyro_vae.evaluation.calibration import simulation_based_calibration as calibration
from pyro_vae.evaluation.importance import log_weights
from pyro_vae.evaluation.report import Evaluation, evaluate
from pyro_vae.evaluation.suboptimality import FAMILIES, LocalFit, gaps
from pyro_vae.experiments.command_line import user_errors
from pyro_vae.experiments.config import peak
from pyro_vae.experiments.runs import FIGURES, about, load_run, save_json, sentence
from pyro_vae.models.vae import VAE
from pyro_vae.plots import diagnostics as diagnostic_plots
from pyro_vae.plots import panels as plots
from pyro_vae.training.epoch import seeded


@dataclass(frozen=True)
class Options:
    """Evaluate a run's best weights."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """The run's folder."""
    num_samples: int = 1000
    """Importance samples for each image."""
    split: Literal["train", "validation", "test"] = "test"
    """The part of the data set."""
    max_images: int | None = None
    """Use only the first so many images."""
    compile: bool = False
    """Compile the weighing of the samples into one graph: some seconds, then two to three times as fast."""
    kl_draws: int = 1000
    """Draws from the aggregate posterior that decompose the KL; 0 leaves it out (slow for --guide iaf)."""
    ais: bool = False
    """Also bound log p(x) by annealed importance sampling: from below on the first few images, from both sides on simulated ones."""
    ais_steps: int = 500
    """Temperatures of the annealing."""
    gaps: bool = False
    """Also split log p(x) - ELBO, on the first few images, into what the guide's family and what its encoder loses."""
    calibration: bool = False
    """Also check the guide against the model by simulation: rank histograms."""
    few: int = 100
    """How many images the slow diagnostics (--ais, --gaps) use."""
    data_dir: Path | None = None
    """The folder of torchvision's data sets, where it has moved since the run."""
    device: str = "auto"
    """cpu, cuda, mps, or auto."""


def main(args: Sequence[str] | None = None) -> None:
    """Evaluate, print tables, write ``evaluation-SPLIT-K.json`` and figures into the run's folder."""
    options = tyro.cli(Options, args=args, description=__doc__)
    with user_errors():
        config, vae, splits = load_run(
            options.run, data_dir=options.data_dir, device=options.device
        )
        images = getattr(splits, options.split).subset(slice(options.max_images))
        with seeded(config.seed):
            x = images.all()
            settings = {
                name: getattr(options, name) for name in ("num_samples", "compile", "kl_draws")
            }
            evaluation = evaluate(vae.model, vae.guide, x, **settings, progress=sys.stderr.isatty())
        with seeded(config.seed):
            extras = diagnose(options, vae, x, evaluation)
            name = f"evaluation-{options.split}-{options.num_samples}"
            draw(options.run / FIGURES / name, vae, images, x, evaluation, options.calibration)
        result = {"split": options.split, **about(config, images), **evaluation.summary()}
        save_json({**result, **extras}, options.run / f"{name}.json")
        console = Console(soft_wrap=True, highlight=False)
        console.print(table(result, f"{options.run.name}: {options.split}, nats per image"))
        for title, values in extras.items():
            console.print(table(values, title.replace("_", " ")))
        console.print(
            f"{sentence(result)}\nwritten to {options.run / f'{name}.json'}", markup=False
        )


def diagnose(
    options: Options, vae: VAE, x: torch.Tensor, evaluation: Evaluation
) -> dict[str, dict[str, float]]:
    """The slow diagnostics that were asked for, on the first few images."""
    few, extras, progress = x[: options.few], {}, sys.stderr.isatty()
    log_px = evaluation.log_px[: len(few)]
    if options.ais:
        ais = AIS(num_steps=options.ais_steps)
        log_weight = ais.log_weights(vae.model, vae.guide, few, progress=progress).cpu()
        by_weighting, log_px = (
            log_px,
            weights.log_mean_exp(log_weight),
        )  # the gaps below are from the better estimate
        sandwich = ais.sandwich(vae.model, vae.guide, few, progress=progress)
        simulated = evaluate(vae.model, vae.guide, *sandwich.args, num_samples=options.num_samples)
        extras["annealed_importance_sampling"] = {
            "num_images": len(few),
            "log_px": float(log_px.mean()),
            "log_px_standard_error": float(weights.standard_error(log_weight).square().sum().sqrt())
            / len(few),
            "log_px_by_importance_sampling": float(by_weighting.mean()),
            "simulated_lower_bound": float(sandwich.lower.mean()),
            "simulated_upper_bound": float(sandwich.upper.mean()),
            "simulated_by_importance_sampling": float(simulated.log_px.mean()),
        }
    if options.gaps:
        for name, family in FAMILIES.items():
            split = gaps(
                vae.model,
                vae.guide,
                few,
                fit=LocalFit(family),
                log_px=log_px.to(few.device),
                progress=progress,
            )
            extras[f"gaps_{name}"] = {
                "num_images": len(few),
                "approximation": float(split.approximation.mean()),
                "amortisation": float(split.amortisation.mean()),
            }
    return extras


def draw(
    folder: Path, vae: VAE, images: Images, x: torch.Tensor, evaluation: Evaluation, calibrate: bool
) -> None:
    """Draw the figures into a folder."""
    order = evaluation.pareto_k.nan_to_num().argsort()
    chosen = order[[0, len(order) // 2, -1]]
    log_weight = log_weights(
        vae.model, vae.guide, x[chosen.to(x.device)], num_samples=evaluation.num_samples
    )
    labels = [
        f"{name} k = {float(evaluation.pareto_k[i]):.2f}"
        for name, i in zip(("least", "median", "largest"), chosen, strict=True)
    ]
    figures = {
        "convergence": diagnostic_plots.convergence(evaluation),
        "pareto": diagnostic_plots.pareto(evaluation),
        "weight_tails": diagnostic_plots.weight_tails(log_weight, labels),
        "extremes": diagnostic_plots.extremes(
            x, evaluation.log_px, images.shape, peak=peak(images)
        ),
    }
    if calibrate:
        figures["ranks"] = diagnostic_plots.ranks(calibration(vae.model, vae.guide, x))
    for name, figure in figures.items():
        plots.save(figure, folder / f"{name}.png")


def table(result: dict[str, Any], title: str) -> Table:
    """The figures of a result."""
    out = Table("", "value", title=title)
    for name, value in result.items():
        out.add_row(
            name.replace("_", " "), f"{value:.4f}" if isinstance(value, float) else str(value)
        )
    return out


if __name__ == "__main__":
    torch.set_flush_denormal(
        True
    )  # before any thread starts: arithmetic on subnormal numbers is slow
    main()
