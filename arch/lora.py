"""Fine-tuning through low-rank adapters: a few new weights beside frozen ones, and nothing else learns."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from . import limits
from .contracts import Cost
from .init import stream
from .ops.linear import Linear, linear


class LoRA(nn.Module):
    """A frozen linear projection and a low-rank change of it that is learnt.

    y = W x + b + alpha / rank * B A dropout(x),  W: (out, in), A: (rank, in) ~ N(0, 1/in), B: (out, rank) = 0 at the start

    Paper: Hu 2021, arXiv:2106.09685 (section 4.1). Differs: nothing; it leaves the width of the Gaussian open.
    Cost per token: rank * (in + out) parameters more, and as many multiply-adds until they are merged; no state.
    Args:   linear: its weight and bias are taken over under their names. rank: of the change, at most the smaller side of W.
            alpha: numerator of the change's scale. dropout: share of the adapter's input that is set to zero.
    Shape:  x: (..., in) -> (..., out)
    Raises: ValueError: the rank is not from 1 to the smaller side; alpha is not positive; dropout is no share below 1.
    """

    fixed_inputs = ("lora_b",)  # rank channels

    def __init__(self, linear: nn.Linear, *, rank: int, alpha: float, dropout: float = 0.0) -> None:
        super().__init__()  # not an nn.Linear itself: arch.init draws the weights of those anew
        self.in_features, self.out_features = linear.in_features, linear.out_features
        most = min(self.in_features, self.out_features)
        if not 1 <= rank <= most:
            raise ValueError(f"rank={rank}: from 1 to {most} for a projection of {self.in_features} to {self.out_features}")
        limits.above_zero(alpha=alpha)
        self.scale = alpha / rank
        self.weight, self.bias = linear.weight, linear.bias
        self.lora_a = nn.Parameter(self.weight.new_empty(rank, self.in_features))
        self.lora_b = nn.Parameter(self.weight.new_empty(self.out_features, rank))
        self.dropout = limits.dropout(dropout)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.normal_(self.lora_a, std=1 / math.sqrt(self.in_features))
        nn.init.zeros_(self.lora_b)

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias) + self.scale * linear(linear(self.dropout(x), self.lora_a), self.lora_b)


def add_lora(model: nn.Module, names: Sequence[str], *, rank: int, alpha: float, dropout: float = 0.0, seed: int = 0) -> None:
    """Adapt every nn.Linear with one of these last names, such as q_proj, and freeze all the rest, in place.

    Before it, load the weights; after it, free what else is to learn, such as a new head, and build the optimiser.
    Raises: ValueError: a name that no nn.Linear has (a bank of experts is none); adapters that are there already; the rank.
    """
    linears = {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear)}
    known = {name.rpartition(".")[2] for name in linears}
    if not names or not known.issuperset(names):
        raise ValueError(f"names={list(names)}: this model's projections are {', '.join(sorted(known))}")
    if _adapters(model):
        raise ValueError(f"this model has {len(_adapters(model))} adapters already: merge them before you add others")
    adapters = {}
    with torch.random.fork_rng(devices=[]):
        for name, linear in linears.items():
            if name.rpartition(".")[2] in names:
                torch.manual_seed(stream(seed, "lora", name))  # not that of the weight itself
                adapters[name] = LoRA(linear, rank=rank, alpha=alpha, dropout=dropout)
    model.requires_grad_(False)  # the adapters are no part of it yet
    unmerge(model, adapters)


def merge(model: nn.Module) -> dict[str, LoRA]:
    """Put one plain nn.Linear in the place of each adapter; what was there, for ``unmerge``."""
    adapters = _adapters(model)
    for name, adapter in adapters.items():
        linear = Linear(adapter.in_features, adapter.out_features, bias=False, device="meta")
        change = adapter.scale * adapter.lora_b.data @ adapter.lora_a.data
        linear.weight, linear.bias = nn.Parameter(adapter.weight.data + change, requires_grad=False), adapter.bias
        model.set_submodule(name, linear)
    return adapters


def unmerge(model: nn.Module, adapters: Mapping[str, LoRA]) -> None:
    """Put the adapters back: all is as before ``merge`` to the bit, since nothing has to be subtracted."""
    for name, adapter in adapters.items():
        model.set_submodule(name, adapter.train(model.training))


@contextlib.contextmanager
def without_adapters(model: nn.Module) -> Iterator[None]:
    """For a while the frozen projections stand in the place of the adapters, which change nothing: blocks report what they
    cost by their own formulas."""
    adapters = _adapters(model)
    for name, adapter in adapters.items():
        linear = Linear(adapter.in_features, adapter.out_features, bias=False, device="meta")
        linear.weight, linear.bias = adapter.weight, adapter.bias
        model.set_submodule(name, linear)
    try:
        yield
    finally:
        unmerge(model, adapters)


def adapter_cost(model: nn.Module) -> Cost:
    """What adapters add to what model.cost() was before they were there; merged, they add nothing."""
    n = sum(a.lora_a.numel() + a.lora_b.numel() for a in _adapters(model).values())
    return Cost(params=n, active_params=n, flops=2 * n)


def _adapters(model: nn.Module) -> dict[str, LoRA]:
    return {name: module for name, module in model.named_modules() if isinstance(module, LoRA)}
