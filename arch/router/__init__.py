"""Routers: they choose which experts work on which tokens."""

from .balanced import Balanced
from .expert_choice import ExpertChoice
from .hash import Hash
from .linear import LinearRouter
from .noisy import NoisyTopK
from .switch import Switch
from .topk import TopK

__all__ = ["Balanced", "ExpertChoice", "Hash", "LinearRouter", "NoisyTopK", "Switch", "TopK"]
