"""The machinery of the scripts: configurations, presets, run folders, the command line.

May import: everything. Only the scripts import it.
"""

from .build import build_svi, build_vae, choose_device, load_splits
from .choices import GUIDES, OBJECTIVES, SPHERICAL, fitting_likelihoods, peak
from .command_line import parse, resumable, user_errors
from .config import Config, check_values
from .glossary import GLOSSARY, explain
from .pairs import load_pair
from .presets import PRESETS
from .progress import part
from .results import about, draw_figures, judge, sentence
from .runs import Run, chosen, load_run, open_run, report
from .storage import history, load_config, save_config, save_json

__all__ = [
    "GLOSSARY",
    "GUIDES",
    "OBJECTIVES",
    "PRESETS",
    "SPHERICAL",
    "Config",
    "Run",
    "about",
    "build_svi",
    "build_vae",
    "check_values",
    "choose_device",
    "chosen",
    "draw_figures",
    "explain",
    "fitting_likelihoods",
    "history",
    "judge",
    "load_config",
    "load_pair",
    "load_run",
    "load_splits",
    "open_run",
    "parse",
    "part",
    "peak",
    "report",
    "resumable",
    "save_config",
    "save_json",
    "sentence",
    "user_errors",
]
