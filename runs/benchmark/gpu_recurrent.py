"""Recurrent mixers on a GPU in bf16: beside the layers of flash-linear-attention, and beside attention as texts grow."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from arch import GRU, Attention, GatedDeltaNet, GatedLinearAttention, Mamba, Mamba2, Rotary
from arch.init import initialise

from .case import Bar, Case, Turn, lazily, times
from .steps import drawn, layer

FEWEST = 8192  # tokens of a text; attention is met from twice as many on
TOKENS = 32_768  # of a batch
LINEAR = ("Mamba-2", "gated linear attention", "gated DeltaNet")


def cases(device: torch.device) -> Iterator[Case]:
    fewest, tokens, d_model = (FEWEST, TOKENS, 1024) if device.type == "cuda" else (64, 128, 64)
    for seq in (fewest, 2 * fewest, 4 * fewest):
        yield case(seq, max(1, tokens // seq), d_model, device, first=seq == fewest)


def case(seq: int, batch: int, d_model: int, device: torch.device, *, first: bool) -> Case:
    """first: beside other people's layers, and with those that go token by token; else beside attention."""
    make = {name: partial(make, d_model) for name, make in LAYERS.items()}
    names = [*LINEAR, *(("Mamba", "GRU", *(f"{name} of fla" for name in LINEAR)) if first else ()), "attention"]
    contenders = {name: lazily(partial(there_and_back, make[name], seq, batch, d_model, device)) for name in names}
    if first:
        bars = [Bar(f"fla's time over ours, {name}", times(f"{name} of fla", name), at_least=0.9) for name in LINEAR]
    else:
        bars = [Bar(f"attention's time over {name}'s", times("attention", name), at_least=1) for name in LINEAR]
    return Case(f"recurrent mixers, {seq:,} tokens, batch {batch}, {d_model:,} channels", contenders, bars)


def there_and_back(make: Callable[[], nn.Module], seq: int, batch: int, d_model: int, device: torch.device) -> Turn:
    module = make().to(device)
    x = torch.randn(batch, seq, d_model, generator=drawn(0)).to(device)
    return layer(module, x, bf16=True)


def ours(kind: type[nn.Module], **sizes: Any) -> nn.Module:
    module = kind(**sizes)
    initialise(module, seed=0)
    return module


def of_fla(name: str, d_model: int) -> nn.Module:
    """Its layer of the same sizes, with weights of its own. Raises ImportError: flash-linear-attention is not installed."""
    from fla import layers  # type: ignore[import-not-found, unused-ignore]

    if name == "Mamba-2":
        sizes = {"hidden_size": d_model, "num_heads": d_model // 32, "head_dim": 64, "state_size": 128, "expand": 2}
        return First(layers.Mamba2(**sizes, n_groups=1))
    if name == "gated linear attention":
        return First(layers.GatedLinearAttention(hidden_size=d_model, num_heads=4, expand_k=0.5, expand_v=1.0))
    return First(layers.GatedDeltaNet(hidden_size=d_model, num_heads=4, head_dim=d_model // 4, expand_v=1.0))


class First(nn.Module):
    """A layer that returns more than its output."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor | tuple[Tensor, ...] = self.inner(x)
        return y[0] if isinstance(y, tuple) else y


def attention(d_model: int) -> nn.Module:
    return ours(Attention, d_model=d_model, n_heads=d_model // 64, position=Rotary(d_head=64))


LAYERS: dict[str, Callable[[int], nn.Module]] = {
    "attention": attention,
    "Mamba-2": lambda d: ours(Mamba2, d_model=d),
    "gated linear attention": lambda d: ours(GatedLinearAttention, d_model=d, n_heads=4),
    "gated DeltaNet": lambda d: ours(GatedDeltaNet, d_model=d, n_heads=4, d_key=d, d_value=d),
    "Mamba": lambda d: ours(Mamba, d_model=d),
    "GRU": lambda d: ours(GRU, d_model=d),
    **{f"{name} of fla": partial(of_fla, name) for name in LINEAR},
}
