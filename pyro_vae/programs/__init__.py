"""What a pair of Pyro programs is to us: its sites and structure, its draws, their scores.

May import: nets (its products and its log sigmoid).
"""

from .draw import Draw
from .pair import Pair
from .scoring import Term
from .simulation import Simulation, simulate
from .sites import Program

__all__ = ["Draw", "Pair", "Program", "Simulation", "Term", "simulate"]
