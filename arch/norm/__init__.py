"""Norms: they set the scale of each token's channels."""

from .dynamic_tanh import DynamicTanh
from .layernorm import LayerNorm
from .rmsnorm import RMSNorm

__all__ = ["DynamicTanh", "LayerNorm", "RMSNorm"]
