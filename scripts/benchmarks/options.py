"""What is measured, and how often."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

Step = Callable[[], object]
Rows = dict[str, Step]

PIXELS = (1, 28, 28)
D = math.prod(PIXELS)


@dataclass(frozen=True)
class Options:
    """What is measured, and how often."""

    what: Annotated[
        tuple[str, ...],
        tyro.conf.arg(metavar="{step,iwae,epoch,evaluation,large,memory,endurance}"),
    ] = ("step", "evaluation", "memory")
    """Which tables; epoch and endurance need MNIST in --data-dir."""
    architecture: str = "mlp"
    """mlp or conv."""
    batch: int = 128
    """Images in a step."""
    hidden: int = 400
    """Hidden units of the mlp."""
    latent: int = 20
    """The dimension of z."""
    num_samples: int = 1000
    """K of the evaluation."""
    images: int = 64
    """Images evaluated in a block."""
    large: int = 272
    """Images of 105 x 105 pixels in the table large."""
    blocks: int = 11
    """Blocks, of which the first is not counted."""
    steps: int = 100
    """Steps of each row in a block."""
    switches: int = 50
    """A block with more involuntary context switches per second is repeated (at most thrice)."""
    endurance_steps: int = 20_000
    """Steps of the endurance run."""
    data_dir: Path | None = None
    """The folder of torchvision's MNIST."""
    device: str = "cpu"
    """cpu, or cuda, which has rows of its own and none of NumPyro's."""
    threads: int | None = None
    """Torch's threads; by default as many as cores."""
    output: Path = Path("benchmark.json")
    """Where the numbers go."""
