"""The MoE layer against a dense GLU of equal active FLOPs, and against the loop over experts that textbooks write."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from arch import GLU, Experts, MoE, TopK
from arch.init import initialise

from .case import Bar, Case, times
from .steps import drawn, layer


def cases() -> Iterator[Case]:
    yield case(n_experts=8, top_k=2, d_ff=512, at_most=1.08)
    yield case(n_experts=64, top_k=8, d_ff=512, at_most=1.1)
    yield case(n_experts=64, top_k=8, d_ff=64, at_most=1.9)


def case(*, n_experts: int, top_k: int, d_ff: int, at_most: float, tokens: int = 4096, d_model: int = 512) -> Case:
    router = TopK(d_model=d_model, n_experts=n_experts, top_k=top_k)
    experts = Experts(d_model=d_model, d_ff=d_ff, n_experts=n_experts, activation="silu", gated=True)
    moe = MoE(d_model=d_model, router=router, experts=experts)
    dense = GLU(d_model=d_model, d_ff=top_k * d_ff, activation="silu")
    for module in (moe, dense):
        initialise(module, seed=0)
    x = torch.randn(1, tokens, d_model, generator=drawn(0))
    contenders = {"dense": layer(dense, x), "a loop": layer(moe, x, call=lambda x: loop(moe, x)), "the lab's": layer(moe, x)}
    bar = Bar("the lab's time over the dense layer's", times("the lab's", "dense"), at_most=at_most)
    loops = Bar("the loop's time over the dense layer's", times("a loop", "dense"))
    name = f"MoE layer, {n_experts} experts, {top_k} chosen, d_ff {d_ff}, {tokens:,} tokens of {d_model}"
    return Case(name, contenders, [bar, loops], {"the lab's": "a loop"})


def loop(moe: MoE, x: Tensor) -> Tensor:
    """Expert after expert, each on its own tokens."""
    flat = x.flatten(0, 1)
    routing, weights = moe.router(flat), moe.experts
    y = torch.zeros_like(flat, dtype=torch.float32)
    assert weights.gate_proj is not None
    banks = [bank.unbind(0) for bank in (weights.gate_proj, weights.up_proj, weights.down_proj)]
    for expert, (gate, up, down) in enumerate(zip(*banks, strict=True)):
        rows = routing.expert == expert
        token = routing.token[rows]
        h = F.silu(flat[token] @ gate.mT) * (flat[token] @ up.mT)
        y = y.index_add(0, token, ((h @ down.mT) * routing.gate[rows, None]).float())
    return y.to(x.dtype).view_as(x)
