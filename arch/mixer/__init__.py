"""Mixers over the sequence."""

from .attention import Attention
from .cache import KVCache
from .cross import CrossAttention, Memory
from .gated_delta_net import GatedDeltaNet
from .gated_linear_attention import GatedLinearAttention
from .mamba import Mamba
from .mamba2 import Mamba2
from .mla import MLA
from .native_sparse import NativeSparse
from .rnn import GRU, LSTM

__all__ = [
    "GRU",
    "LSTM",
    "MLA",
    "Attention",
    "CrossAttention",
    "GatedDeltaNet",
    "GatedLinearAttention",
    "KVCache",
    "Mamba",
    "Mamba2",
    "Memory",
    "NativeSparse",
]
