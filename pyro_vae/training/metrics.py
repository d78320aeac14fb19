"""Metrics of one epoch."""

import csv
import io
from dataclasses import asdict, dataclass, fields


@dataclass(frozen=True)
class Record:
    """Metrics of one epoch, in nats per datum.

    Those of the training set are means over the epoch, while the weights change. They are ``nan``
    where the objective does not give log-likelihood and KL apart. Those of the validation set are
    for the weights at the end of the epoch, in ``eval`` mode; ``None`` without a validation set.
    """

    epoch: int
    step: int
    """Number of optimisation steps so far."""
    loss: float
    """The mean of what was minimised."""
    train_elbo: float
    train_log_likelihood: float
    train_kl: float
    validation_elbo: float | None
    validation_log_likelihood: float | None
    validation_kl: float | None
    active_units: int | None
    """Active latent dimensions on the validation set.

    ``None`` too where the guide has no continuous latents with one row per datum.
    """
    beta: float | None
    """The weight of the KL at the last step; ``None`` where the objective has none."""
    learning_rate: float
    """Of the first parameter group, during the epoch."""
    seconds: float
    """Wall-clock time of the epoch's training, without validation."""


def to_csv(history: list[Record]) -> str:
    """Return a table with a header and one row per record."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [f.name for f in fields(Record)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(map(asdict, history))
    return text.getvalue()
