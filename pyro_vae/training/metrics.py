"""What an epoch came to."""

import csv
import io
from dataclasses import asdict, dataclass, fields


@dataclass(frozen=True)
class Record:
    """What an epoch came to, in nats per datum; ``None`` where there is no validation set.

    The figures of the training set are means over the epoch, while the weights move; ``nan`` where the objective does not
    tell log-likelihood and KL apart. Those of the validation set, in ``eval`` mode, are for the weights at the epoch's end.
    """

    epoch: int
    step: int
    """Optimisation steps so far."""
    loss: float
    """What was minimised."""
    train_elbo: float
    train_log_likelihood: float
    train_kl: float
    validation_elbo: float | None
    validation_log_likelihood: float | None
    validation_kl: float | None
    active_units: int | None
    """On the validation set; ``None`` too where the guide has no continuous latents with one row per datum."""
    beta: float | None
    """At the last step; ``None`` where the objective has none."""
    learning_rate: float
    """Of the first parameter group."""
    seconds: float
    """The wall-clock time of the epoch's training."""


def to_csv(history: list[Record]) -> str:
    """A table with one row per record, and a header."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [f.name for f in fields(Record)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(map(asdict, history))
    return text.getvalue()
