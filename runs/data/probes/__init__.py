"""Synthetic tasks with known answers: what can an architecture do at all?"""

from .copying import Copying
from .induction_heads import InductionHeads
from .markov_chain import MarkovChain
from .modular_addition import ModularAddition
from .mqar import MQAR
from .selective_copying import SelectiveCopying

__all__ = ["MQAR", "Copying", "InductionHeads", "MarkovChain", "ModularAddition", "SelectiveCopying"]
