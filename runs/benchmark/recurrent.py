"""Recurrent mixers as texts grow, beside attention and beside transformers' own layers."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from arch import GRU, LSTM, Attention, GatedDeltaNet, GatedLinearAttention, Mamba, Mamba2, Rotary
from arch.init import initialise

from .case import Bar, Case, Turn, exponent, times
from .steps import drawn, layer

D_MODEL, BATCH = 256, 2
SEQS = (256, 1024, 4096)


def cases() -> Iterator[Case]:
    for seq in SEQS:
        yield case(seq)
    yield growth()


def mixers() -> dict[str, nn.Module]:
    """With the state that papers give them at this width."""
    found: dict[str, nn.Module] = {
        "attention": Attention(d_model=D_MODEL, n_heads=8, position=Rotary(d_head=32)),
        "GRU": GRU(d_model=D_MODEL),
        "LSTM": LSTM(d_model=D_MODEL),
        "Mamba": Mamba(d_model=D_MODEL),
        "Mamba-2": Mamba2(d_model=D_MODEL, d_head=64, d_state=64),
        "gated linear attention": GatedLinearAttention(d_model=D_MODEL, n_heads=4),
        "gated DeltaNet": GatedDeltaNet(d_model=D_MODEL, n_heads=4, d_key=D_MODEL, d_value=D_MODEL),
    }
    for module in found.values():
        initialise(module, seed=0)
    return found


def case(seq: int) -> Case:
    x = torch.randn(BATCH, seq, D_MODEL, generator=drawn(0))
    contenders: dict[str, Turn] = {name: layer(module, x) for name, module in mixers().items()}
    contenders["Mamba-2 of transformers"] = layer(mamba2_of_transformers(), x)
    contenders["gated DeltaNet of transformers"] = layer(Wrapped(delta_net_of_transformers()), x)
    bars = [
        Bar("Mamba's time over Mamba-2's", times("Mamba", "Mamba-2"), at_most=1.5),
        Bar("GRU's time over LSTM's", times("GRU", "LSTM"), at_most=1.5),
        *(
            Bar(f"transformers' time over ours, {name}", times(f"{name} of transformers", name), at_least=1.5)
            for name in ("Mamba-2", "gated DeltaNet")
        ),
    ]
    return Case(f"recurrent mixers, {seq:,} tokens, batch {BATCH}, {D_MODEL} channels", contenders, bars)


def growth() -> Case:
    contenders, bars = dict[str, Turn](), []
    for name in ("GRU", "LSTM", "Mamba", "Mamba-2", "gated linear attention", "gated DeltaNet"):
        for seq in SEQS:
            x = torch.randn(BATCH, seq, D_MODEL, generator=drawn(0))
            contenders[f"{name} at {seq:,}"] = layer(mixers()[name], x)
        grown = exponent({seq: f"{name} at {seq:,}" for seq in SEQS})
        bars.append(Bar(f"the time of {name} grows with this power of the length", grown, at_most=1.1))
    return Case("recurrent mixers, linear in length", contenders, bars)


def mamba2_of_transformers() -> nn.Module:
    from transformers.models.mamba2.modeling_mamba2 import Mamba2Config, Mamba2Mixer

    config = Mamba2Config(hidden_size=D_MODEL, num_heads=8, head_dim=64, state_size=64, n_groups=1, chunk_size=64)
    return Mamba2Mixer(config, layer_idx=0)


def delta_net_of_transformers() -> nn.Module:
    from transformers.models.qwen3_next.modeling_qwen3_next import Qwen3NextConfig, Qwen3NextGatedDeltaNet

    heads = {"linear_num_key_heads": 4, "linear_num_value_heads": 4, "linear_key_head_dim": 64, "linear_value_head_dim": 64}
    return Qwen3NextGatedDeltaNet(Qwen3NextConfig(hidden_size=D_MODEL, **heads), layer_idx=0)


class Wrapped(nn.Module):
    """A layer that calls its input otherwise."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.inner(hidden_states=x)
        return y
