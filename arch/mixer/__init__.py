"""Mixers over the sequence."""

from .attention import Attention
from .cache import KVCache

__all__ = ["Attention", "KVCache"]
