"""MIWAE (Mattei & Frellsen 2019): impute tables in which half of the entries are missing.

The script computes the mean squared error of the missing entries, in units of the column's
variance. It compares MIWAE with the column's mean and with scikit-learn's iterative imputer. As in
the paper, MIWAE is trained on the table that it imputes.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.experimental import enable_iterative_imputer  # noqa: F401  makes the next import work
from sklearn.impute import IterativeImputer
from torch import Tensor, nn

from pyro_vae import IWAE, SVI, DiagonalNormal, StandardNormal, fit, log_likelihood, mlp
from pyro_vae.data import load_table
from pyro_vae.evaluation import impute
from pyro_vae.experiments.programs import Folder, ProgramOptions, program
from pyro_vae.families import StudentT
from pyro_vae.models import MIWAE
from pyro_vae.plots import bars
from pyro_vae.training import seeded

PUBLISHED = {"iris, MIWAE, published": 0.44}
"""The error of MIWAE in its authors' notebook."""

WAYS = ("mean", "iterative", "MIWAE")


@dataclass(frozen=True)
class Options(ProgramOptions):
    """The options of a run."""

    epochs: int = 100
    tables: tuple[str, ...] = ("iris", "wine", "breast_cancer", "diabetes")
    missing: float = 0.5
    """The fraction of the entries that are missing at random."""
    num_seeds: int = 5
    """The number of runs for each table, with different masks and networks."""
    latent_dim: int = 10
    hidden: int = 128
    num_particles: int = 20
    num_samples: int = 1000
    """The number of draws for the imputation of each row."""
    batch_size: int = 64
    lr: float = 1e-3


def main(args: Sequence[str] | None = None) -> None:
    """Impute each table several times by three methods."""
    with program(Options, args, __doc__) as (options, folder):
        runs = {
            table: [run(options, folder, table, seed) for seed in range(options.num_seeds)]
            for table in options.tables
        }
        means = {table: summary(each, fmean) for table, each in runs.items()}
        errors = {table: summary(each, error) for table, each in runs.items()}
        shown = {
            f"{table}, {way}": f"{value:.3f} +- {errors[table][way]:.3f}"
            for table, ways in means.items()
            for way, value in ways.items()
        }
        folder.write({**shown, **PUBLISHED, "runs": runs})
        wanted = {t: {way: ways[way] for way in WAYS} for t, ways in means.items()}
        title = f"{options.missing:.0%} of the entries missing at random"
        folder.draw("imputation", bars(wanted, errors, ylabel="mean squared error", title=title))


def run(options: Options, folder: Folder, table: str, seed: int) -> dict[str, float]:
    """Return the error of each method on one table with one mask."""
    x = load_table(table)
    with seeded(options.seed, seed):
        observed = torch.rand(x.shape) >= options.missing
        miwae = build(options, x.shape[1])
        svi = SVI(
            *(miwae.model, miwae.guide, torch.optim.Adam(miwae.parameters(), lr=options.lr)),
            loss=IWAE(options.num_particles),
        )
        fit(
            *(svi, (x.where(observed, 0.0), observed)),
            epochs=options.epochs,
            batch_size=options.batch_size,
            seed=seed,
            folder=folder.path / f"{table}-{seed}",
            resume=True,
            progress=options.progress,
        )
        filled = impute(
            *(miwae.model, miwae.guide, x, observed),
            num_samples=options.num_samples,
            with_mask=True,
        )
        bound = log_likelihood(
            *(miwae.model, miwae.guide, x.where(observed, 0.0), observed),
            num_samples=options.num_samples,
        )
    others = {"mean": column_means(x, observed), "iterative": iterative(x, observed, seed)}
    ways = {**others, "MIWAE": filled}
    squared = {way: (y - x)[~observed].square().mean().item() for way, y in ways.items()}
    return {**squared, "log p(observed)": bound.mean().item()}


def build(options: Options, dim: int) -> MIWAE:
    """Build the model of the authors' notebook: two hidden layers, and Student's t likelihoods."""
    hidden, latent = options.hidden, options.latent_dim
    decoder = StudentT.over(lambda outputs: net(latent, hidden, outputs), dim)
    encoder = DiagonalNormal.over(lambda outputs: net(dim, hidden, outputs), latent)
    return MIWAE(StandardNormal(latent), decoder, encoder)


def net(size_in: int, hidden: int, size_out: int) -> nn.Module:
    """Build a network with two hidden layers."""
    return mlp(size_in, hidden, hidden, size_out, activation=nn.Tanh)


def column_means(x: Tensor, observed: Tensor) -> Tensor:
    """Impute the mean of the observed entries of the column."""
    return (x.where(observed, 0.0).sum(0) / observed.sum(0)).expand_as(x)


def iterative(x: Tensor, observed: Tensor, seed: int) -> Tensor:
    """scikit-learn's iterative imputer: Bayesian ridge regressions of each column on the others."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        imputer = IterativeImputer(random_state=seed, max_iter=20, keep_empty_features=True)
        return torch.from_numpy(imputer.fit_transform(x.where(observed, torch.nan).numpy()))


def summary(
    runs: Sequence[dict[str, float]], statistic: Callable[[list[float]], float]
) -> dict[str, float]:
    """Return a statistic over the runs of each number."""
    return {way: statistic([run[way] for run in runs]) for way in runs[0]}


def error(values: Sequence[float]) -> float:
    """The standard error of the mean; NaN for one value."""
    return stdev(values) / len(values) ** 0.5 if len(values) > 1 else float("nan")


if __name__ == "__main__":
    main()
