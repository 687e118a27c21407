"""Patterns: which keys a query may see."""

from .block_sparse import BlockSparse
from .full import Full
from .sliding_window import SlidingWindow
from .strided import Strided

__all__ = ["BlockSparse", "Full", "SlidingWindow", "Strided"]
