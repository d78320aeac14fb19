"""What is tested: the only file of this package that imports pyro_vae."""

from pyro_vae import SVI, Trace_ELBO, TraceMeanField_ELBO, log_likelihood, log_weights
from pyro_vae.evaluation.ais import AIS
from pyro_vae.evaluation.report import evaluate
from pyro_vae.objectives.doubly_reparameterised import STL, DReG
from pyro_vae.objectives.free_bits import FreeBits
from pyro_vae.objectives.importance_weighted import IWAE
from pyro_vae.objectives.renyi import Renyi
from pyro_vae.objectives.score_function import ScoreFunction_ELBO

GUMBEL = (
    "from pyro_vae.families.categorical import RelaxedOneHot"  # a line of the generated programs
)

__all__ = [
    "AIS",
    "GUMBEL",
    "IWAE",
    "STL",
    "SVI",
    "DReG",
    "FreeBits",
    "Renyi",
    "ScoreFunction_ELBO",
    "TraceMeanField_ELBO",
    "Trace_ELBO",
    "evaluate",
    "log_likelihood",
    "log_weights",
]
