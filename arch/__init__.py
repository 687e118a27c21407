"""Blocks to build language models from, and the models built from them: torch and einops alone, reusable one by one."""

from .block import OutputNorm, Parallel, PostNorm, PreNorm, Sandwich
from .contracts import Block, Cache, ChannelMixer, Cost, Norm, Pattern, Position, Router, Routing, SequenceMixer
from .decode import generate
from .ffn import GLU, MLP, Experts, MoE
from .losses import load_balance_loss, router_z_loss
from .mixer import GRU, LSTM, Attention, Mamba
from .model import Decoder
from .norm import DynamicTanh, LayerNorm, RMSNorm
from .pattern import BlockSparse, Full, SlidingWindow, Strided
from .position import (
    ALiBi,
    Learned,
    LinearScaling,
    NTKScaling,
    RelativeBias,
    Rotary,
    Sinusoidal,
    YaRNScaling,
)
from .router import Balanced, ExpertChoice, Hash, NoisyTopK, Switch, TopK
from .routing import pop_routings
from .score import DotProduct, FullWidthQKNorm, Gaussian, QKNorm, Score, Sink, SoftCap

__all__ = [
    "GLU",
    "GRU",
    "LSTM",
    "MLP",
    "ALiBi",
    "Attention",
    "Balanced",
    "Block",
    "BlockSparse",
    "Cache",
    "ChannelMixer",
    "Cost",
    "Decoder",
    "DotProduct",
    "DynamicTanh",
    "ExpertChoice",
    "Experts",
    "Full",
    "FullWidthQKNorm",
    "Gaussian",
    "Hash",
    "LayerNorm",
    "Learned",
    "LinearScaling",
    "Mamba",
    "MoE",
    "NTKScaling",
    "NoisyTopK",
    "Norm",
    "OutputNorm",
    "Parallel",
    "Pattern",
    "Position",
    "PostNorm",
    "PreNorm",
    "QKNorm",
    "RMSNorm",
    "RelativeBias",
    "Rotary",
    "Router",
    "Routing",
    "Sandwich",
    "Score",
    "SequenceMixer",
    "Sink",
    "Sinusoidal",
    "SlidingWindow",
    "SoftCap",
    "Strided",
    "Switch",
    "TopK",
    "YaRNScaling",
    "generate",
    "load_balance_loss",
    "pop_routings",
    "router_z_loss",
]
