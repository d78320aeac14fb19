"""Draw samples of a run's model, x ~ p(x | z) with z ~ p(z), as a PNG."""

import signal

if __name__ == "__main__":  # Ctrl-C during the imports, which take seconds, leaves no traceback
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from pyro_vae.experiments.command_line import new_file, user_errors
from pyro_vae.experiments.runs import load_sampler
from pyro_vae.plots import panels as plots
from pyro_vae.programs.checks import at_least
from pyro_vae.training.epoch import seeded


@dataclass(frozen=True)
class Options:
    """Draw samples of a run's best weights."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """The run's folder."""
    n: int = 64
    """How many."""
    mean: bool = False
    """Show the means E[x | z] instead of draws."""
    seed: int = 0
    """Seeds the draws."""
    output: Path | None = None
    """Where to; by default samples-N-seed-SEED.png (means-...) in the run's folder."""
    overwrite: bool = False
    """Replace the file if it is there."""
    data_dir: Path | None = None
    """The folder of torchvision's data sets, where it has moved since the run."""
    device: str = "auto"
    """cpu, cuda, mps, or auto."""


def main(args: Sequence[str] | None = None) -> None:
    """Sample, draw, save."""
    options = tyro.cli(Options, args=args, description=__doc__)
    with user_errors():
        at_least(1, n=options.n)
        at_least(0, seed=options.seed)
        kind = "means" if options.mean else "samples"
        name = f"{kind}-{options.n}-seed-{options.seed}.png"
        path = new_file(options.output or options.run / name, options.overwrite)
        vae, shape, peak = load_sampler(
            options.run, data_dir=options.data_dir, device=options.device
        )
        with seeded(options.seed):
            figure = plots.samples(vae, shape, options.n, mean=options.mean, peak=peak)
        print(f"{options.n} {kind} in {plots.save(figure, path)}")


if __name__ == "__main__":
    main()
