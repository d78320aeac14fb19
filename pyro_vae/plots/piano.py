"""Figures: piano rolls."""

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure
from torch import Tensor


def piano_rolls(rolls: Mapping[str, Tensor], lowest: int = 21) -> Figure:
    """Draw piano rolls (T, keys) below each other, with their titles; a step is a quarter note.

    ``lowest`` is the MIDI number of the first key. Only the range of keys in use is shown.
    Raises ``ValueError`` where there is no piano roll, or one is not (T, keys).

    >>> len(piano_rolls({"a": torch.eye(88), "b": torch.eye(88)}).axes)
    2
    """
    if not rolls or any(roll.ndim != 2 for roll in rolls.values()):
        shapes = [tuple(roll.shape) for roll in rolls.values()]
        raise ValueError(f"expected piano rolls of shape (T, keys), got shapes {shapes}")
    figure = Figure(figsize=(8, 0.4 + 2.0 * len(rolls)), layout="constrained")
    panels = figure.subplots(len(rolls), 1, squeeze=False)[:, 0]
    for axes, (title, roll) in zip(panels, rolls.items(), strict=True):
        used = (roll > 0).any(0).nonzero().flatten().tolist() or [0, roll.shape[1] - 1]
        options: dict[str, Any] = {"cmap": "Greys", "vmin": 0, "interpolation": "nearest"}
        axes.imshow(roll.T.cpu().numpy(), origin="lower", aspect="auto", **options)
        ticks = range(used[0] - used[0] % 12, used[-1] + 1, 12)
        axes.set_yticks(list(ticks), [str(tick + lowest) for tick in ticks])
        axes.set_ylim(used[0] - 1.5, used[-1] + 1.5)
        axes.set(title=title, ylabel="MIDI note")
    panels[-1].set_xlabel("quarter notes")
    return figure
