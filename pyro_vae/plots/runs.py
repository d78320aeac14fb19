"""Figures: the course of several runs beside each other."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..training.metrics import Record


def compared(
    histories: Mapping[str, Sequence[Record]], against: str = "epoch", divide: float = 1.0
) -> Figure:
    """Draw the validation ELBO and KL of several runs by epoch, or against their ``seconds``.

    In nats per datum, or where ``divide`` is the mean number of steps of a datum, per step.
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
            if against == "epoch":
                x = [float(record.epoch) for record in records]
            else:
                x = [sum(r.seconds for r in records[: i + 1]) for i in range(len(records))]
            y = [(getattr(record, name) or 0.0) / divide for record in records]
            axes.plot(x, y, label=label, marker="." if len(x) < 20 else "")
        axes.set(title=title, xlabel=against)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("nats per datum" if divide == 1.0 else "nats per step")
    figure.axes[1].legend(frameon=False)
    return figure
