"""The slow diagnostics of an evaluation, and its figures."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..data.images import Images
from ..evaluation.ais import AIS
from ..evaluation.calibration import Calibration, simulation_based_calibration
from ..evaluation.estimators import log_mean_exp, standard_error
from ..evaluation.importance import log_weights
from ..evaluation.pareto import pareto_k
from ..evaluation.report import Evaluation, evaluate
from ..evaluation.suboptimality import FAMILIES, LocalFit, gaps
from ..plots import diagnostics as plots
from ..plots.panels import save
from ..programs.sites import Program
from .choices import peak
from .progress import part

MIN_SAMPLES = 25
"""With fewer samples the tail of the weights has no shape to estimate."""

BINS = 10


@dataclass(frozen=True)
class Subject:
    """What is evaluated: two programs, the arguments of both, and what to call them."""

    name: str
    title: str
    model: Program
    guide: Program
    args: tuple[Any, ...]
    facts: dict[str, Any]
    seed: int
    folder: Path = Path()
    images: Images | None = None

    def __len__(self) -> int:
        return next(len(value) for value in self.args if isinstance(value, Tensor) and value.ndim)

    @property
    def unit(self) -> str:
        """What the data are called, in the plural."""
        return "images" if self.facts["unit"] == "image" else "data"

    def rows(self, index: Tensor | slice) -> tuple[Any, ...]:
        """The arguments for some of the data."""
        size = len(self)
        return tuple(
            value[index.to(value.device) if isinstance(index, Tensor) else index]
            if isinstance(value, Tensor) and value.ndim and len(value) == size
            else value
            for value in self.args
        )


@dataclass
class Diagnostics:
    """Which diagnostics to run, on the ``few`` first data."""

    few: int
    ais_steps: int | None
    gaps: bool
    calibration: bool
    ranks: Calibration | None = None
    """What the calibration found, once it has run."""

    def run(
        self, subject: Subject, evaluation: Evaluation, show: bool
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the name and the numbers of each diagnostic as soon as they are there."""
        few = subject.rows(slice(self.few))
        log_px = evaluation.log_px[: self.few]
        if self.ais_steps is not None:
            by_weighting = log_px
            with part("annealed importance sampling", show) as progress:
                log_px, numbers = self._annealed(subject, few, evaluation.num_samples, progress)
            numbers["log_px_by_importance_sampling"] = float(by_weighting.mean())
            yield "annealed_importance_sampling", numbers
        if self.gaps:  # from the better estimate of log p(x)
            for name in FAMILIES:
                with part(f"the gap of the {name} family", show) as progress:
                    yield f"gaps_{name}", self._gaps(subject, few, name, log_px, progress)
        if self.calibration:
            with part("calibration by simulation", show):
                self.ranks = simulation_based_calibration(
                    subject.model, subject.guide, *subject.args
                )
            yield "calibration", _ranks(self.ranks)

    def _annealed(
        self, subject: Subject, few: tuple[Any, ...], num_samples: int, progress: bool
    ) -> tuple[Tensor, dict[str, Any]]:
        pair = subject.model, subject.guide
        ais = AIS(num_steps=self.ais_steps or 1)
        log_weight = ais.log_weights(*pair, *few, progress=progress).cpu()
        log_px = log_mean_exp(log_weight)
        error = float(standard_error(log_weight).square().sum().sqrt()) / len(log_px)
        sandwich = ais.sandwich(*pair, *few, progress=progress)
        simulated = evaluate(*pair, *sandwich.args, num_samples=num_samples, kl_draws=0)
        return log_px, {
            "num_images": len(log_px),
            "log_px": float(log_px.mean()),
            "log_px_standard_error": error,
            "simulated_lower_bound": float(sandwich.lower.mean()),
            "simulated_upper_bound": float(sandwich.upper.mean()),
            "simulated_by_importance_sampling": float(simulated.log_px.mean()),
        }

    def _gaps(
        self, subject: Subject, few: tuple[Any, ...], name: str, log_px: Tensor, progress: bool
    ) -> dict[str, Any]:
        split = gaps(
            subject.model,
            subject.guide,
            *few,
            fit=LocalFit(FAMILIES[name]),
            log_px=log_px.to(few[0].device),
            progress=progress,
        )
        return {
            "num_images": len(log_px),
            "approximation": float(split.approximation.mean()),
            "amortisation": float(split.amortisation.mean()),
        }


def _ranks(found: Calibration) -> dict[str, Any]:
    """The numbers behind the figure of ranks."""
    p_values = found.p_values(BINS).tolist()
    return {
        "num_simulations": len(found.ranks),
        "num_draws": found.num_draws,
        "smallest_p_value": min(p_values),
        "p_values": p_values,
        "histogram": found.histogram(BINS).tolist(),
    }


def draw(
    folder: Path, subject: Subject, evaluation: Evaluation, ranks: Calibration | None = None
) -> None:
    """Draw the figures of an evaluation into a folder."""
    figures = {}
    if evaluation.num_samples > 1:
        figures["convergence"] = plots.convergence(evaluation)
    if evaluation.num_samples >= MIN_SAMPLES:
        figures["pareto"] = plots.pareto(evaluation)
        figures["weight_tails"] = _weight_tails(subject, evaluation)
    if subject.images is not None:
        images = subject.images
        figures["extremes"] = plots.extremes(
            subject.args[0], evaluation.log_px, images.shape, peak=peak(images)
        )
    if ranks is not None:
        figures["ranks"] = plots.ranks(ranks, BINS)
    for name, figure in figures.items():
        save(figure, folder / f"{name}.png")


def _weight_tails(subject: Subject, evaluation: Evaluation) -> Any:
    """The weights of three data, drawn anew: those of the least, median and largest Pareto k."""
    order = evaluation.pareto_k.nan_to_num().argsort()
    chosen = torch.stack([order[0], order[len(order) // 2], order[-1]])
    rows = subject.rows(chosen)
    log_weight = log_weights(
        subject.model, subject.guide, *rows, num_samples=evaluation.num_samples
    )
    names = ("least", "median", "largest")
    labels = [  # k of the very weights that are shown
        f"{name}: k = {float(k):.2f}"
        for name, k in zip(names, pareto_k(log_weight.cpu().double()), strict=True)
    ]
    return plots.weight_tails(log_weight, labels)
