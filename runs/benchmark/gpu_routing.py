"""What routing takes of a MoE layer on a GPU, and what uneven loads cost."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from arch import Experts, MoE, TopK
from arch.init import initialise
from arch.ops.grouped import grouped_matmul

from .case import Bar, Case, Measured, Turn, lazily, times
from .gpu_bank import Bank, OfTheLab, weights
from .moe import loop
from .steps import drawn, layer

LARGE = (Bank(8, 2, 1024, 2816, 32_768), Bank(64, 8, 1024, 512, 32_768))
TINY = (Bank(8, 2, 16, 24, 40),)
SKEW = 4  # times an even share that the busiest expert has


def cases(device: torch.device) -> Iterator[Case]:
    for bank in LARGE if device.type == "cuda" else TINY:
        yield share(bank, device)
        yield skewed(bank, device)


def share(bank: Bank, device: torch.device) -> Case:
    """The layer, against its products alone, of rows that are gathered and sorted already."""
    contenders = {
        "a loop": lazily(lambda: routed(bank, device, plainly=True)),
        "the lab's layer": lazily(lambda: routed(bank, device)),
        "its products alone": lazily(lambda: products(bank, device)),
    }

    def rest(m: Measured) -> Sequence[float]:
        pairs = zip(m.seconds["its products alone"], m.seconds["the lab's layer"], strict=True)
        return [1 - alone / whole for alone, whole in pairs]

    bars = [Bar("share of gate, sort, gather and sum in the layer's time", rest, at_most=0.1)]
    return Case(f"MoE layer, {bank}", contenders, bars, {"the lab's layer": "a loop"}, tolerance=5e-2)


def routed(bank: Bank, device: torch.device, *, plainly: bool = False) -> Turn:
    router = TopK(d_model=bank.d_model, n_experts=bank.n_experts, top_k=bank.top_k, softmax="after")
    experts = Experts(d_model=bank.d_model, d_ff=bank.d_ff, n_experts=bank.n_experts, activation="silu", gated=True)
    moe = MoE(d_model=bank.d_model, router=router, experts=experts)
    initialise(moe, seed=0)
    moe.to(device)
    moe.experts.to(torch.bfloat16)  # what casting takes is a training step's, not routing's
    x = torch.randn(1, bank.tokens, bank.d_model, generator=drawn(0)).to(device, torch.bfloat16)
    call: Callable[[Tensor], Tensor] = (lambda x: loop(moe, x)) if plainly else moe
    return layer(moe, x, call=call, bf16=True)


def products(bank: Bank, device: torch.device) -> Turn:
    rows = bank.tokens * bank.top_k
    x = torch.randn(rows, bank.d_model, generator=drawn(0)).to(device, torch.bfloat16)
    counts = torch.full((bank.n_experts,), rows // bank.n_experts, device=device)
    counts[0] += rows % bank.n_experts
    gate, up, down = banks = nn.ParameterList(weights(bank, device))

    def call(x: Tensor) -> Tensor:
        hidden = F.silu(grouped_matmul(x, gate, counts)) * grouped_matmul(x, up, counts)
        return grouped_matmul(hidden, down, counts)

    return layer(banks, x, call=call)


def skewed(bank: Bank, device: torch.device) -> Case:
    contenders = {
        "even loads": lazily(lambda: loaded(bank, device, 1)),
        "an uneven load": lazily(lambda: loaded(bank, device, SKEW)),
    }
    bar = Bar("time of the uneven load over that of even ones", times("an uneven load", "even loads"), at_most=1.15)
    return Case(f"bank, {SKEW} times an even share on one expert, {bank}", contenders, [bar])


def loaded(bank: Bank, device: torch.device, skew: float) -> Turn:
    """The bank where expert 0 has so many even shares of the assignments, and the others what is left, evenly."""
    module = OfTheLab(bank, device)
    x = torch.randn(bank.tokens, bank.d_model, generator=drawn(0)).to(device, torch.bfloat16)
    assignments = bank.tokens * bank.top_k
    first = round(skew * assignments / bank.n_experts)
    others = 1 + torch.arange(assignments - first) % (bank.n_experts - 1)
    expert = torch.cat((torch.zeros(first, dtype=torch.int64), others))[torch.randperm(assignments, generator=drawn(1))]
    expert = expert.view(-1, bank.top_k).to(device)
    gate = torch.full(expert.shape, 1 / bank.top_k, device=device)
    return layer(module, x, call=lambda x: module(x, expert, gate))
