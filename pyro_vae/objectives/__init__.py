"""Objectives: the losses that SVI minimises, each computed from a draw, and schedules of beta.

Every objective is one of Pyro's ELBOs; Pyro's own ELBOs are adopted by ``stock``.
May import: programs.
"""

from .doubly_reparameterised import STL, DReG
from .elbo import Trace_ELBO, TraceMeanField_ELBO
from .free_bits import FreeBits
from .importance_weighted import IWAE, ImportanceWeighted
from .info import InfoVAE, mmd
from .objective import Estimate, Objective, ObjectiveModule, Schedule
from .renyi import Renyi
from .schedules import cyclical, linear
from .score_function import ScoreFunction_ELBO
from .stratified import Stratified_ELBO
from .wake_sleep import ReweightedWakeSleep

__all__ = [
    "IWAE",
    "STL",
    "DReG",
    "Estimate",
    "FreeBits",
    "ImportanceWeighted",
    "InfoVAE",
    "Objective",
    "ObjectiveModule",
    "Renyi",
    "ReweightedWakeSleep",
    "Schedule",
    "ScoreFunction_ELBO",
    "Stratified_ELBO",
    "TraceMeanField_ELBO",
    "Trace_ELBO",
    "cyclical",
    "linear",
    "mmd",
]
