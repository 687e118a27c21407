"""Ffns: they mix over the channels of each token."""

from .experts import Experts
from .glu import GLU
from .mlp import MLP
from .moe import MoE

__all__ = ["GLU", "MLP", "Experts", "MoE"]
