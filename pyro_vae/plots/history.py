"""Figures: the course of training."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..training.metrics import Record

Numbers = npt.NDArray[np.float64]


def curves(records: Iterable[Record]) -> Figure:
    """Draw the ELBO of training and validation set by epoch, and its two terms, in nats per datum.

    The vertical range is that of all but the first tenth of the epochs.
    Raises ``ValueError`` where there are no records.
    """
    records = list(records)
    if not records:
        raise ValueError("expected at least one record, got none")
    epochs = _values(records, "epoch")
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    panels = {"elbo": "ELBO", "log_likelihood": "E[log p(x | z)]", "kl": "KL(q(z | x), p(z))"}
    for axes, (name, title) in zip(figure.subplots(1, 3), panels.items(), strict=True):
        for split, style in (("train", "-"), ("validation", "--")):
            _plot(axes, epochs, _values(records, f"{split}_{name}"), split, style)
        _settle(axes)
        _label(axes, title, "epoch")
    figure.axes[0].set_ylabel("nats per datum")
    figure.axes[0].legend(frameon=False)
    return figure


def compared(
    histories: Mapping[str, Sequence[Record]], against: str = "epoch", divide: float = 1.0
) -> Figure:
    """Draw the validation ELBO and KL of several runs by epoch, or against their ``seconds``.

    Values are divided by ``divide``: 1 gives nats per datum, and the mean number of steps of a
    datum gives nats per step.
    Raises ``ValueError`` where there is no run, or for another ``against``.
    """
    if not histories or against not in ("epoch", "seconds"):
        raise ValueError(
            "expected at least one run, against epoch or seconds, "
            f"got {len(histories)} against {against!r}"
        )
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    panels = {"validation_elbo": "validation ELBO", "validation_kl": "validation KL"}
    for axes, (name, title) in zip(figure.subplots(1, 2), panels.items(), strict=True):
        for label, records in histories.items():
            x = _values(records, against)
            x = x if against == "epoch" else x.cumsum()
            _plot(axes, x, _values(records, name) / divide, label)
        _label(axes, title, against)
    figure.axes[0].set_ylabel("nats per datum" if divide == 1.0 else "nats per step")
    figure.axes[1].legend(frameon=False)
    return figure


def _values(records: Sequence[Record], name: str) -> Numbers:
    """The values of a column; None becomes NaN."""
    return np.array([getattr(record, name) for record in records], float)


def _plot(axes: Axes, x: Any, values: Numbers, label: str, style: str = "-") -> None:
    """Draw one line, unless no record has its values."""
    if np.isfinite(values).any():
        axes.plot(x, values, style, label=label, marker="." if len(values) < 20 else "")


def _label(axes: Axes, title: str, xlabel: str) -> None:
    """Set the title and a horizontal axis with whole numbers."""
    axes.set(title=title, xlabel=xlabel)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
    axes.grid(alpha=0.3)


def _settle(axes: Axes) -> None:
    """Set the range to the values after the first tenth of the epochs, which would hide them."""
    lines = [np.asarray(line.get_ydata(), float) for line in axes.lines]
    values = np.concatenate([line[len(line) // 10 :] for line in lines] or [np.empty(0)])
    values = values[np.isfinite(values)]
    if len(values) and np.ptp(values) > 0:
        margin = 0.05 * np.ptp(values)
        axes.set_ylim(float(values.min() - margin), float(values.max() + margin))
