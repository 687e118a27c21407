"""Mixers over the sequence."""

from .attention import Attention
from .cache import KVCache
from .mamba import Mamba
from .rnn import GRU, LSTM

__all__ = ["GRU", "LSTM", "Attention", "KVCache", "Mamba"]
