"""Scores: how a query weighs the keys that it sees."""

from .dot_product import DotProduct
from .gaussian import Gaussian
from .qk_norm import FullWidthQKNorm, QKNorm
from .score import Score
from .sink import Sink
from .soft_cap import SoftCap

__all__ = ["DotProduct", "FullWidthQKNorm", "Gaussian", "QKNorm", "Score", "Sink", "SoftCap"]
