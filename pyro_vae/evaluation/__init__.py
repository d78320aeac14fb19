"""Evaluation of a pair: log p(x) by importance weighting, its errors, diagnostics, applications.

The applications are generation, imputation, anomaly scores, calibration and predictive checks.
May import: families, models, programs.
"""

from .ais import AIS, Sandwich
from .anomaly import auroc, likelihood_regret, surprise
from .calibration import Calibration, simulation_based_calibration
from .classifiers import linear_probe, nearest_neighbours
from .clustering import cluster_accuracy
from .disentanglement import FactorInformation, factor_information
from .estimators import bounds, effective_sample_size, jackknife_bias, log_mean_exp, standard_error
from .generation import decode, interpolate, reconstruct, sample, traverse
from .importance import (
    Scorer,
    log_likelihood,
    log_weights,
)
from .imputation import Channel, bit_flips, denoise, impute, only
from .kl import KLDecomposition, kl_decomposition, marginals
from .latents import active_units, latent_means, means_by_site, site_means
from .layers import kl_by_site
from .pareto import Smoothed, fit_generalized_pareto, pareto_k, pareto_smoothed
from .predictive import PredictiveCheck, posterior_predictive_check
from .report import Evaluation, evaluate
from .suboptimality import DiagonalLocal, FullRankLocal, Gaps, LocalFit, gaps

__all__ = [
    "AIS",
    "Calibration",
    "Channel",
    "DiagonalLocal",
    "Evaluation",
    "FactorInformation",
    "FullRankLocal",
    "Gaps",
    "KLDecomposition",
    "LocalFit",
    "PredictiveCheck",
    "Sandwich",
    "Scorer",
    "Smoothed",
    "active_units",
    "auroc",
    "bit_flips",
    "bounds",
    "cluster_accuracy",
    "decode",
    "denoise",
    "effective_sample_size",
    "evaluate",
    "factor_information",
    "fit_generalized_pareto",
    "gaps",
    "impute",
    "interpolate",
    "jackknife_bias",
    "kl_by_site",
    "kl_decomposition",
    "latent_means",
    "likelihood_regret",
    "linear_probe",
    "log_likelihood",
    "log_mean_exp",
    "log_weights",
    "marginals",
    "means_by_site",
    "nearest_neighbours",
    "only",
    "pareto_k",
    "pareto_smoothed",
    "posterior_predictive_check",
    "reconstruct",
    "sample",
    "simulation_based_calibration",
    "site_means",
    "standard_error",
    "surprise",
    "traverse",
]
