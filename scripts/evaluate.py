"""Evaluate a run: importance-weighted log p(x) with error bars, and where the nats go.

Slow diagnostics, each by its option: annealed importance sampling, the gap between log p(x) and the
ELBO, calibration by simulation. Instead of a run, ``module:function`` names a function of yours
that returns ``model, guide, x``: two Pyro programs, and the data that both are called with.
"""

import signal

if __name__ == "__main__":  # Ctrl-C during the imports, which take seconds, leaves no traceback
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro
from rich.console import Console
from rich.table import Table

from pyro_vae.evaluation.report import evaluate
from pyro_vae.experiments.command_line import new_file, user_errors
from pyro_vae.experiments.diagnostics import Diagnostics, Subject, draw
from pyro_vae.experiments.glossary import explain
from pyro_vae.experiments.pairs import load_pair
from pyro_vae.experiments.progress import part
from pyro_vae.experiments.results import about, sentence
from pyro_vae.experiments.runs import load_run
from pyro_vae.experiments.storage import FIGURES, save_json
from pyro_vae.programs.checks import at_least
from pyro_vae.training.epoch import seeded


@dataclass(frozen=True)
class Options:
    """Evaluate the best weights of a run, or a pair of programs."""

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """The run's folder, or module:function."""
    num_samples: int = 1000
    """Importance samples for each image."""
    split: Literal["train", "validation", "test"] = "test"
    """The part of the run's data set."""
    max_images: int | None = None
    """Use only the first so many images."""
    seed: int | None = None
    """Seeds the draws; by default the run's seed."""
    compile: bool = False
    """Compile the weighing of the samples: some seconds, then two to three times as fast."""
    kl_draws: int = 1000
    """Draws that decompose the KL; 0 leaves it out (slow for --guide iaf)."""
    ais: bool = False
    """Also bound log p(x) by annealing: of the first images from below, of simulated ones twice."""
    ais_steps: int = 500
    """Temperatures of the annealing."""
    gaps: bool = False
    """Also split log p(x) - ELBO into what the guide's family and what its encoder loses."""
    calibration: bool = False
    """Also check the guide against the model by simulation: p-values and histograms of ranks."""
    few: int = 100
    """How many images the slow diagnostics (--ais, --gaps) use."""
    explain: bool = False
    """Say what each number means."""
    output_dir: Path | None = None
    """Where the results go; by default the run's folder, for module:function the current one."""
    overwrite: bool = False
    """Replace the results of the same evaluation if they are there."""
    data_dir: Path | None = None
    """The folder of torchvision's data sets, where it has moved since the run."""
    device: str = "auto"
    """cpu, cuda, mps, or auto (of a run)."""
    progress: bool = True
    """Show how far each part is: a bar in a terminal, elsewhere a line a minute."""


def main(args: Sequence[str] | None = None) -> None:
    """Evaluate, print tables, write a JSON file and figures."""
    options = tyro.cli(Options, args=args, description=__doc__)
    with user_errors(), ExitStack() as stack:
        check(options)
        subject = open_subject(options, stack)
        name = (
            f"evaluation-{subject.name}-{len(subject)}-data-{options.num_samples}-samples"
            f"-seed-{subject.seed}"
        )
        folder = Path(options.output_dir or subject.folder)
        path = new_file(folder / f"{name}.json", options.overwrite)
        folder.mkdir(parents=True, exist_ok=True)
        result, extras = run(options, subject, path, folder / FIGURES / name)
        console = Console(soft_wrap=True, highlight=False)
        title = f"{subject.title}, nats per {subject.facts['unit']}"
        console.print(table(result, title, options.explain))
        for name, values in extras.items():
            console.print(table(values, name.replace("_", " "), options.explain))
        if subject.images is not None:
            console.print(sentence(result, options.split), markup=False)
        console.print(f"written to {path}", markup=False)


def check(options: Options) -> None:
    """Raise ``ValueError`` for numbers that mean nothing."""
    at_least(
        1,
        num_samples=options.num_samples,
        max_images=options.max_images,
        ais_steps=options.ais_steps,
        few=options.few,
    )
    at_least(0, kl_draws=options.kl_draws, seed=options.seed)
    if options.kl_draws == 1:
        raise ValueError("expected kl_draws of 0, or at least 2, got 1")


def open_subject(options: Options, stack: ExitStack) -> Subject:
    """The pair that is evaluated, and its data."""
    if ":" in options.run and not Path(options.run).exists():
        pair = stack.enter_context(load_pair(options.run)).first(options.max_images)
        seed = options.seed or 0
        facts = {"pair": pair.name, "seed": seed, "unit": "datum"}
        name = pair.name.replace(":", ".")
        return Subject(name, pair.name, pair.model, pair.guide, pair.args, facts, seed)
    folder = Path(options.run)
    config, vae, splits = load_run(folder, data_dir=options.data_dir, device=options.device)
    seed = config.seed if options.seed is None else options.seed
    images = getattr(splits, options.split).subset(slice(options.max_images))
    if not len(images):
        raise ValueError(f"expected a split with images, got {options.split}, which has none")
    facts = {"split": options.split, **about(config, images), "seed": seed}
    with seeded(seed):
        x = images.all()
    title = f"{folder.resolve().name}: {options.split}"
    return Subject(options.split, title, vae.model, vae.guide, (x,), facts, seed, folder, images)


def run(
    options: Options, subject: Subject, path: Path, figures: Path
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Evaluate; save every number as soon as it is there, and before a figure is drawn."""
    label = f"evaluating {len(subject)} {subject.unit}, {options.num_samples} samples each"
    with seeded(subject.seed), part(label, options.progress) as show:
        evaluation = evaluate(
            subject.model,
            subject.guide,
            *subject.args,
            num_samples=options.num_samples,
            compile=options.compile,
            kl_draws=options.kl_draws,
            progress=show,
        )
    result = {**subject.facts, **evaluation.summary()}
    save_json(result, path)
    diagnostics = Diagnostics(
        options.few, options.ais_steps if options.ais else None, options.gaps, options.calibration
    )
    extras: dict[str, dict[str, Any]] = {}
    with seeded(subject.seed):
        for name, values in diagnostics.run(subject, evaluation, options.progress):
            extras[name] = values
            save_json({**result, **extras}, path)
        with part("drawing figures", options.progress):
            draw(figures, subject, evaluation, diagnostics.ranks)
    return result, extras


def table(result: dict[str, Any], title: str, explained: bool) -> Table:
    """The numbers of a result, each with its meaning if that is asked for."""
    out = Table("", "value", *(["meaning"] if explained else []), title=title)
    for name, value in result.items():
        if isinstance(value, list):  # only in the file
            continue
        shown = f"{value:.4f}" if isinstance(value, float) else "-" if value is None else str(value)
        label = "rate (KL)" if name == "rate" else name
        out.add_row(label, shown, *([explain(name)] if explained else []))
    return out


if __name__ == "__main__":
    # Before any thread starts: arithmetic on subnormal numbers is slow.
    torch.set_flush_denormal(True)
    main()
