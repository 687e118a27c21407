"""Patterns that see less than everything, against full attention, as texts grow."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping

import torch
from einops import rearrange
from torch import Tensor

from arch import Attention, BlockSparse, Full, Rotary, SlidingWindow, Strided
from arch.contracts import Pattern
from arch.init import initialise

from .case import Bar, Case, Turn, exponent, times
from .steps import drawn, layer

D_MODEL, N_HEADS = 256, 8


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


def case(what: str, pattern: Callable[[int], Pattern], at_least: Mapping[int, float], *, power: float | None = None) -> Case:
    contenders, bars, names, twins = dict[str, Turn](), [], dict[int, str](), dict[str, str]()
    for seq, bar in at_least.items():
        x = torch.randn(1, seq, D_MODEL, generator=drawn(0))
        full, sparse = f"full at {seq:,}", f"{what} at {seq:,}"
        for name, one in ((full, Full()), (sparse, pattern(seq))):
            module = Attention(d_model=D_MODEL, n_heads=N_HEADS, pattern=one, position=Rotary(d_head=D_MODEL // N_HEADS))
            initialise(module, seed=0)
            contenders[name] = layer(module, x)
        if seq <= 4096:  # beyond it the pairs take gigabytes
            twins[sparse] = f"{sparse}, every pair"
            contenders[twins[sparse]] = layer(module, x, call=lambda x, module=module: every_pair(module, x))  # type: ignore[misc]
        names[seq] = sparse
        bars.append(Bar(f"full attention's time over its own, {seq:,} tokens", times(full, sparse), at_least=bar))
    if power is not None:
        bars.append(Bar("its time grows with this power of the length", exponent(names), at_most=power))
    return Case(f"{what}, {D_MODEL} channels, {N_HEADS} heads", contenders, bars, twins)


def every_pair(module: Attention, x: Tensor) -> Tensor:
    """The plain twin: all scores, and a mask that hides what is not seen."""
    positions = torch.arange(x.shape[1])[None]
    q, k, v = (rearrange(p(x), "b s (h d) -> b h s d", h=N_HEADS) for p in (module.q_proj, module.k_proj, module.v_proj))
    q, k = module.position.rotate(q, k, positions, positions)
    y = module.score.attend(q, k, v, mask=module.pattern.allows(positions, positions)[:, None])
    y = module.o_proj(rearrange(y, "b h s d -> b s (h d)"))
    return y
