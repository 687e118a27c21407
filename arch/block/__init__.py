"""Blocks: one layer's wiring of norms, mixer, ffn and residual."""

from .output_norm import OutputNorm
from .parallel import Parallel
from .plain import Plain
from .post_norm import PostNorm
from .pre_norm import PreNorm
from .sandwich import Sandwich

__all__ = ["OutputNorm", "Parallel", "Plain", "PostNorm", "PreNorm", "Sandwich"]
