"""Draw the curves of several runs of ``aevb.py`` in one figure, a panel for each latent space."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyro_vae.experiments.programs import ProgramOptions, program
from pyro_vae.experiments.storage import CONFIG, load_json
from pyro_vae.plots import LearningCurve, learning_curves


@dataclass(frozen=True)
class Options(ProgramOptions):
    """The options of a figure."""

    runs: tuple[Path, ...] = ()
    """The folders of the runs."""
    low: float = -160.0
    """The lower end of the vertical axis, in nats per image."""


def main(args: Sequence[str] | None = None) -> None:
    """Read the runs; write the last bounds and draw the curves."""
    with program(Options, args, __doc__) as (options, folder):
        runs = [(load_json(run / CONFIG), curves_of(run)) for run in options.runs]
        panels: dict[int, dict[str, LearningCurve]] = {}
        marginals: dict[str, dict[str, LearningCurve]] = {}
        for config, curves in runs:
            for dim, points in curves.items():
                name = f"{config['algorithm']}, {config['optimiser']}"
                panels.setdefault(int(dim), {})[name] = read(points, "")
                if config["num_samples"]:
                    title = f"z = {dim}, {config['num_train']} training images"
                    marginals.setdefault(title, {})[name] = read(points, "_log_px")
        folder.write({"last": table(runs)})
        titled = {f"z = {dim}": panels[dim] for dim in sorted(panels)}
        folder.draw("bound", learning_curves(titled, low=options.low))
        if marginals:
            figure = learning_curves(marginals, quantity="log p(x)", low=options.low)
            folder.draw("log_px", figure)


def curves_of(run: Path) -> dict[str, list[dict[str, float]]]:
    """The curves of a run, by the size of the latent space; the run may be unfinished."""
    files = sorted(run.glob("z*/curve.json"))
    return {file.parent.name[1:]: load_json(file)["curve"] for file in files}


def read(points: Sequence[dict[str, float]], suffix: str) -> LearningCurve:
    """Convert the recorded points of a run of ``aevb.py`` to a curve."""
    columns = ("samples", f"train{suffix}", f"test{suffix}")
    return LearningCurve(*([point[column] for point in points] for column in columns))


def table(runs: Sequence[tuple[dict[str, Any], dict[str, Any]]]) -> list[dict[str, Any]]:
    """The last points of all curves."""
    shown = ("algorithm", "optimiser", "num_train")
    return [
        {**{key: config[key] for key in shown}, "latent_dim": int(dim), **points[-1]}
        for config, curves in runs
        for dim, points in curves.items()
    ]


if __name__ == "__main__":
    main()
