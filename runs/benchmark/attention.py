"""Patterns that see less than everything, against full attention, as texts grow."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from arch import Attention, BlockSparse, Full, Rotary, SlidingWindow, Strided
from arch.contracts import Pattern
from arch.init import initialise

from .case import Bar, Case, Turn, exponent, lazily, times
from .steps import drawn, layer

D_MODEL, N_HEADS = 256, 8
CPU = torch.device("cpu")


def cases() -> Iterator[Case]:
    yield case("sliding window of 256", lambda seq: SlidingWindow(window=256), {1024: 1.2, 4096: 3, 16384: 10}, power=1.1)
    yield case(
        "block-sparse",
        lambda seq: BlockSparse(block=64, n_global=64, window_blocks=3, n_random=2),
        {4096: 2.5},
    )
    yield case(
        "strided by the root of the length",
        lambda seq: Strided(window=math.isqrt(seq), stride=math.isqrt(seq)),
        {1024: 1.0, 4096: 2, 16384: 2},
        power=1.6,
    )


def case(
    what: str,
    pattern: Callable[[int], Pattern],
    at_least: Mapping[int, float],
    *,
    power: float | None = None,
    d_model: int = D_MODEL,
    device: torch.device = CPU,
    bf16: bool = False,
) -> Case:
    contenders, bars, names, twins = dict[str, Turn](), [], dict[int, str](), dict[str, str]()
    for seq, bar in at_least.items():
        full, sparse = f"full at {seq:,}", f"{what} at {seq:,}"
        sizes: dict[str, Any] = {"seq": seq, "d_model": d_model, "device": device, "bf16": bf16}
        contenders[full] = lazily(partial(attention, Full(), **sizes))
        contenders[sparse] = lazily(partial(attention, pattern(seq), **sizes))
        if seq <= 4096:  # beyond it the pairs take gigabytes
            twins[sparse] = f"{sparse}, every pair"
            contenders[twins[sparse]] = lazily(partial(attention, pattern(seq), plainly=True, **sizes))
        names[seq] = sparse
        bars.append(Bar(f"full attention's time over its own, {seq:,} tokens", times(full, sparse), at_least=bar))
    if power is not None:
        bars.append(Bar("its time grows with this power of the length", exponent(names), at_most=power))
    return Case(f"{what}, {d_model} channels, {N_HEADS} heads", contenders, bars, twins, tolerance=3e-2 if bf16 else 1e-3)


def attention(pattern: Pattern, *, seq: int, d_model: int, device: torch.device, bf16: bool, plainly: bool = False) -> Turn:
    position = Rotary(d_head=d_model // N_HEADS)
    module = Attention(d_model=d_model, n_heads=N_HEADS, pattern=pattern, position=position)
    initialise(module, seed=0)
    module.to(device)
    x = torch.randn(1, seq, d_model, generator=drawn(0)).to(device)
    return layer(module, x, call=partial(every_pair, module) if plainly else None, bf16=bf16)


def every_pair(module: Attention, x: Tensor) -> Tensor:
    """The plain twin: all scores, and a mask that hides what is not seen."""
    positions = torch.arange(x.shape[1], device=x.device)[None]
    q, k, v = (rearrange(p(x), "b s (h d) -> b h s d", h=N_HEADS) for p in (module.q_proj, module.k_proj, module.v_proj))
    q, k = module.position.rotate(q, k, positions, positions)
    y = module.score.attend(q, k, v, mask=module.pattern.allows(positions, positions)[:, None])
    y = module.o_proj(rearrange(y, "b h s d -> b s (h d)"))
    return y
