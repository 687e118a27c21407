"""Blocks to build language models from, and the models built from them: torch and einops alone, reusable one by one."""

from .block import OutputNorm, Parallel, Plain, PostNorm, PreNorm, Sandwich
from .contracts import Block, Cache, ChannelMixer, Cost, Memory, Model, Norm, Pattern, Position, Router, Routing, SequenceMixer
from .decode import generate
from .ffn import GLU, MLP, Experts, MoE
from .losses import load_balance_loss, router_z_loss
from .mixer import (
    GRU,
    LSTM,
    MLA,
    Attention,
    CrossAttention,
    GatedDeltaNet,
    GatedLinearAttention,
    Mamba,
    Mamba2,
    NativeSparse,
)
from .model import Decoder, Embedding, Encoder, EncoderDecoder, MaskedLMHead, Pooler
from .norm import DynamicTanh, LayerNorm, RMSNorm
from .pattern import BlockSparse, Full, SlidingWindow, Strided
from .position import (
    ALiBi,
    Learned,
    LinearScaling,
    Llama3Scaling,
    NTKScaling,
    RelativeBias,
    Rotary,
    Sinusoidal,
    YaRNScaling,
)
from .router import Balanced, ExpertChoice, Hash, NoisyTopK, Switch, TopK
from .routing import pop_routings
from .score import DotProduct, FullWidthQKNorm, Gaussian, QKNorm, Score, Sink, SoftCap

__version__ = "0.1.0"

__all__ = [
    "GLU",
    "GRU",
    "LSTM",
    "MLA",
    "MLP",
    "ALiBi",
    "Attention",
    "Balanced",
    "Block",
    "BlockSparse",
    "Cache",
    "ChannelMixer",
    "Cost",
    "CrossAttention",
    "Decoder",
    "DotProduct",
    "DynamicTanh",
    "Embedding",
    "Encoder",
    "EncoderDecoder",
    "ExpertChoice",
    "Experts",
    "Full",
    "FullWidthQKNorm",
    "GatedDeltaNet",
    "GatedLinearAttention",
    "Gaussian",
    "Hash",
    "LayerNorm",
    "Learned",
    "LinearScaling",
    "Llama3Scaling",
    "Mamba",
    "Mamba2",
    "MaskedLMHead",
    "Memory",
    "MoE",
    "Model",
    "NTKScaling",
    "NativeSparse",
    "NoisyTopK",
    "Norm",
    "OutputNorm",
    "Parallel",
    "Pattern",
    "Plain",
    "Pooler",
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
