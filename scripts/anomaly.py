"""Score strange images with a run trained on binary MNIST, set by set.

Prints the AUROC of -log p(x) and of likelihood regret. Shows what each score finds, and the known
failure of raw likelihood: images that are simpler than the familiar ones are likelier.
"""

import signal

if __name__ == "__main__":  # Ctrl-C during the imports, which take seconds, leaves no traceback
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import torch.nn.functional as F
import tyro
from rich.console import Console
from rich.table import Table
from torch import Tensor

from pyro_vae.data.splits import load_data
from pyro_vae.evaluation.anomaly import auroc, likelihood_regret, surprise
from pyro_vae.evaluation.suboptimality import LocalFit
from pyro_vae.experiments.command_line import new_file, user_errors
from pyro_vae.experiments.config import Config
from pyro_vae.experiments.progress import part
from pyro_vae.experiments.runs import load_run
from pyro_vae.experiments.storage import CONFIG, load_config, save_json
from pyro_vae.models.vae import VAE
from pyro_vae.programs.checks import at_least
from pyro_vae.training.epoch import seeded

FAMILIAR = "MNIST (familiar)"

BINARY = (None, "static", "dynamic", "threshold")
"""The pixels of runs that can be asked: None stands for those usual for MNIST, dynamic."""


@dataclass(frozen=True)
class Options:
    """Tell strange images from familiar ones."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """The folder of a run on binary MNIST."""
    images: int = 200
    """How many images of each set."""
    num_samples: int = 500
    """Importance samples for each image."""
    fit_steps: int = 200
    """Steps that look for each image's best q (regret)."""
    overwrite: bool = False
    """Replace the results of the same scores if they are there."""
    data_dir: Path | None = None
    """The folder of torchvision's data sets, where it has moved since the run."""
    progress: bool = True
    """Show how far each part is: a bar in a terminal, elsewhere a line a minute."""


def main(args: Sequence[str] | None = None) -> None:
    """Score, write a JSON file into the run's folder, print a table."""
    options = tyro.cli(Options, args=args, description=__doc__)
    with user_errors():
        check(options, load_config(options.run / CONFIG))
        name = f"anomaly-{options.images}-images-{options.num_samples}-samples.json"
        path = new_file(options.run / name, options.overwrite)
        config, vae, _ = load_run(options.run, data_dir=options.data_dir)
        sets = image_sets(options, config)
        scores = {}
        for number, (name, intensity) in enumerate(sets.items(), 1):
            label = f"set {number} of {len(sets)}, {name}"
            with seeded(config.seed), part(label, options.progress) as show:
                scores[name] = score(options, vae, torch.bernoulli(intensity.flatten(1)), show)
        rows = compare(scores)
        counts = {"num_samples": options.num_samples, "images": options.images}
        save_json({**counts, "seed": config.seed, "sets": rows}, path)
        Console().print(table(rows))
        print(f"written to {path}")


def check(options: Options, config: Config) -> None:
    """Raise ``ValueError`` for numbers that mean nothing, and for a run of other images."""
    at_least(1, images=options.images, num_samples=options.num_samples, fit_steps=options.fit_steps)
    if config.dataset != "mnist":
        raise ValueError(f"expected a run on mnist, got one on {config.dataset}")
    if config.pixels not in BINARY:
        raise ValueError(f"expected a run on binary pixels, got one on {config.pixels} pixels")


def image_sets(options: Options, config: Config) -> dict[str, Tensor]:
    """The familiar images, more of the same kind, and the strange ones; in [0, 1], (N, 28, 28)."""
    test = load_data("mnist", options.data_dir or config.data_dir, pixels="grey").test
    count = options.images
    if 2 * count > len(test):
        raise ValueError(f"expected images of at most {len(test) // 2}, got {count}")
    grey = test.batch(torch.arange(2 * count)).view(-1, 28, 28)
    familiar = {FAMILIAR: grey[:count], "other MNIST (control)": grey[count:]}
    return familiar | strange_sets(grey[:count])


def strange_sets(grey: Tensor) -> dict[str, Tensor]:
    """Images in [0, 1], (N, 28, 28), that are not MNIST's, made from MNIST's or not."""
    digits = load_data("digits", pixels="grey").test.all().view(-1, 1, 8, 8)
    upscaled = F.interpolate(digits, size=28, mode="bilinear")[: len(grey), 0]
    top = grey.clone()
    top[:, 14:] = 0
    return {
        "digits upscaled": upscaled,
        "MNIST rotated by 90 degrees": grey.rot90(dims=(1, 2)),
        "MNIST inverted": 1 - grey,
        "noise": torch.full_like(grey, 0.5),
        "noise of MNIST's mean": torch.full_like(grey, float(grey.mean())),
        "MNIST thinned": -F.max_pool2d(-grey[:, None], 3, 1, 1)[:, 0],
        "MNIST's top halves": top,
        "blank": torch.zeros_like(grey),
    }


def score(options: Options, vae: VAE, x: Tensor, progress: bool) -> tuple[Tensor, Tensor]:
    """-log p(x) and likelihood regret of some images, (B,) each."""
    samples = options.num_samples
    fit = LocalFit(num_steps=options.fit_steps)
    regret = likelihood_regret(
        vae.model, vae.guide, x, fit=fit, num_samples=samples, progress=progress
    )
    return surprise(vae.model, vae.guide, x, num_samples=samples), regret


def compare(scores: dict[str, tuple[Tensor, Tensor]]) -> dict[str, dict[str, float]]:
    """The numbers of each set against the familiar one."""
    known = scores[FAMILIAR]
    return {
        name: {
            "log_px": -float(mine[0].mean()),
            "auroc_log_px": auroc(known[0], mine[0]),
            "auroc_regret": auroc(known[1], mine[1]),
        }
        for name, mine in scores.items()
        if name != FAMILIAR
    }


def table(rows: dict[str, dict[str, float]]) -> Table:
    """The numbers for the terminal."""
    out = Table("set", "log p(x)", "AUROC of -log p(x)", "AUROC of regret")
    for name, row in rows.items():
        aurocs = (f"{row[key]:.3f}" for key in ("auroc_log_px", "auroc_regret"))
        out.add_row(name, f"{row['log_px']:.1f}", *aurocs)
    return out


if __name__ == "__main__":
    torch.set_flush_denormal(True)
    main()
