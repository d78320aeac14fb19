"""Score strange images with a run trained on MNIST: the AUROC of -log p(x) and of likelihood regret, set by set.

Shows what each score finds out, and the known failure of raw likelihood: simpler images than the familiar ones are likelier.
"""

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
from pyro_vae.experiments.command_line import user_errors
from pyro_vae.experiments.runs import load_run, save_json
from pyro_vae.training.epoch import seeded


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
    data_dir: Path | None = None
    """The folder of torchvision's data sets, where it has moved since the run."""


def strange_sets(grey: Tensor) -> dict[str, Tensor]:
    """Intensities in [0, 1], (N, 28, 28), of images that are not MNIST's, made from MNIST's or not."""
    digits = load_data("digits", pixels="grey").test
    upscaled = F.interpolate(digits.all().view(-1, 1, 8, 8), size=28, mode="bilinear")[
        : len(grey), 0
    ]
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


def main(args: Sequence[str] | None = None) -> None:
    """Score, print a table, write ``anomaly.json`` into the run's folder."""
    options = tyro.cli(Options, args=args, description=__doc__)
    with user_errors():
        config, vae, _ = load_run(options.run, data_dir=options.data_dir)
        if config.dataset != "mnist":
            raise ValueError(f"expected a run on mnist, got one on {config.dataset}")
        test = load_data("mnist", options.data_dir or config.data_dir, pixels="grey").test
        grey = test.batch(torch.arange(2 * options.images)).view(-1, 28, 28)
        sets = {
            "MNIST (familiar)": grey[: options.images],
            "other MNIST (control)": grey[options.images :],
        }
        fit, scores = LocalFit(num_steps=options.fit_steps), {}
        for name, intensity in (sets | strange_sets(grey[: options.images])).items():
            with seeded(config.seed):
                x = torch.bernoulli(intensity.flatten(1))
                regret = likelihood_regret(
                    vae.model, vae.guide, x, fit=fit, num_samples=options.num_samples
                )
                scores[name] = (
                    surprise(vae.model, vae.guide, x, num_samples=options.num_samples),
                    regret,
                )
        known = scores.pop("MNIST (familiar)")
        rows = {
            name: {
                "log_px": -float(mine[0].mean()),
                "auroc_log_px": auroc(known[0], mine[0]),
                "auroc_regret": auroc(known[1], mine[1]),
            }
            for name, mine in scores.items()
        }
        save_json(
            {"num_samples": options.num_samples, "images": options.images, "sets": rows},
            options.run / "anomaly.json",
        )
        table = Table("set", "log p(x)", "AUROC of -log p(x)", "AUROC of regret")
        for name, row in rows.items():
            table.add_row(
                name,
                f"{row['log_px']:.1f}",
                f"{row['auroc_log_px']:.3f}",
                f"{row['auroc_regret']:.3f}",
            )
        Console().print(table)


if __name__ == "__main__":
    torch.set_flush_denormal(True)
    main()
