"""What is tested: the only file of this package that imports pyro_vae."""

from pyro_vae import SVI, Trace_ELBO, TraceMeanField_ELBO, log_likelihood, log_weights
from pyro_vae.ais import AIS
from pyro_vae.collapse import FreeBits
from pyro_vae.discrete import ScoreFunction_ELBO
from pyro_vae.evaluate import evaluate
from pyro_vae.iwae import IWAE, STL, DReG
from pyro_vae.objectives import Renyi

GUMBEL = "from pyro_vae.discrete import RelaxedOneHot"  # a line of the generated programs

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
