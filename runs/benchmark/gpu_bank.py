"""A bank of experts on a GPU, there and back in bf16, against transformers' way with torch's grouped product."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from arch import Experts

from .case import Bar, Case, Turn, lazily, memory, times
from .steps import drawn, layer


class Bank(NamedTuple):
    n_experts: int
    top_k: int
    d_model: int
    d_ff: int
    tokens: int

    def __str__(self) -> str:
        return f"{self.n_experts} experts, {self.top_k} chosen, d_ff {self.d_ff}, {self.tokens:,} tokens of {self.d_model:,}"


LARGE = Bank(128, 8, 2048, 768, 32_768)
OTHERS = (
    Bank(8, 1, 1024, 2816, 16_384),
    Bank(8, 2, 768, 2048, 32_768),
    Bank(8, 2, 4096, 14_336, 4096),
    Bank(16, 2, 2048, 1408, 16_384),
    Bank(16, 4, 1024, 512, 65_536),
    Bank(32, 4, 1536, 1024, 16_384),
    Bank(64, 6, 2048, 1408, 16_384),
    Bank(64, 8, 768, 512, 32_768),
    Bank(64, 8, 2048, 1024, 4096),
    Bank(128, 8, 2048, 768, 2048),
    Bank(128, 1, 1024, 1024, 32_768),
    Bank(256, 8, 1024, 256, 16_384),
)
TINY = (Bank(8, 2, 16, 24, 40), Bank(4, 1, 8, 8, 17))


def cases(device: torch.device) -> Iterator[Case]:
    first, *others = (LARGE, *OTHERS) if device.type == "cuda" else TINY
    yield case(first, device, faster=1.3, smaller=0.6)
    for bank in others:
        yield case(bank, device, faster=1.0)


def case(bank: Bank, device: torch.device, *, faster: float, smaller: float | None = None) -> Case:
    contenders = {
        "transformers": lazily(lambda: there_and_back(OfTransformers(bank, device), bank, device)),
        "the lab's": lazily(lambda: there_and_back(OfTheLab(bank, device), bank, device)),
    }
    bars = [Bar("transformers' time over the lab's", times("transformers", "the lab's"), at_least=faster)]
    if smaller is not None:
        bars.append(Bar("the lab's memory over transformers'", memory("the lab's", "transformers"), at_most=smaller))
    twins = {"the lab's": "transformers"}
    return Case(f"bank of {bank}", contenders, bars, twins, tolerance=3e-2, weighed=smaller is not None)


def there_and_back(module: nn.Module, bank: Bank, device: torch.device) -> Turn:
    """Of tokens whose experts are known; both kinds hold the same weights, in bf16."""
    x = torch.randn(bank.tokens, bank.d_model, generator=drawn(0)).to(device, torch.bfloat16)
    expert, gate = (t.to(device) for t in choices(bank))
    return layer(module, x, call=lambda x: module(x, expert, gate))


def choices(bank: Bank) -> tuple[Tensor, Tensor]:
    """For every token, of top_k experts drawn evenly, the numbers and the gates: (t, k) each."""
    gate, expert = torch.rand(bank.tokens, bank.n_experts, generator=drawn(1)).topk(bank.top_k)
    return expert, gate / gate.sum(-1, keepdim=True)


def weights(bank: Bank, device: torch.device) -> list[Tensor]:
    """gate, up and down, the same at every call, drawn where they are needed: there may be a billion."""
    generator = torch.Generator(device).manual_seed(0)
    shapes = [(bank.d_ff, bank.d_model)] * 2 + [(bank.d_model, bank.d_ff)]
    at: dict[str, Any] = {"device": device, "dtype": torch.bfloat16, "generator": generator}
    return [torch.randn(bank.n_experts, *shape, **at) * shape[1] ** -0.5 for shape in shapes]


class OfTheLab(nn.Module):
    """The bank with the sorting before it, as a MoE does that."""

    def __init__(self, bank: Bank, device: torch.device) -> None:
        super().__init__()
        with torch.device("meta"):
            self.experts = Experts(
                d_model=bank.d_model, d_ff=bank.d_ff, n_experts=bank.n_experts, activation="silu", gated=True
            )
        gate, up, down = weights(bank, device)
        self.experts.load_state_dict({"gate_proj": gate, "up_proj": up, "down_proj": down}, assign=True)

    def forward(self, x: Tensor, expert: Tensor, gate: Tensor) -> Tensor:
        expert = expert.flatten()
        order = expert.argsort(stable=True)
        ones = torch.ones_like(expert)
        counts = expert.new_zeros(self.experts.n_experts).scatter_add_(0, expert, ones)
        y: Tensor = self.experts(x, order // gate.shape[1], gate.flatten()[order], counts)
        return y


class OfTransformers(nn.Module):
    """Its bank of Qwen3-MoE. Raises ImportError: before version 5 transformers had no grouped product."""

    def __init__(self, bank: Bank, device: torch.device) -> None:
        super().__init__()
        import transformers.integrations.moe  # type: ignore[import-not-found, unused-ignore]  # noqa: F401
        from transformers.models.qwen3_moe import modeling_qwen3_moe as peer

        config: Any = peer.Qwen3MoeConfig(
            hidden_size=bank.d_model,
            moe_intermediate_size=bank.d_ff,
            num_experts=bank.n_experts,
            num_experts_per_tok=bank.top_k,
        )
        config._experts_implementation = "grouped_mm"
        with torch.device("meta"):
            self.experts = peer.Qwen3MoeExperts(config)  # type: ignore[attr-defined, unused-ignore]
        gate, up, down = weights(bank, device)
        both = {"gate_up_proj": torch.cat((gate, up), dim=1), "down_proj": down}
        self.experts.load_state_dict(both, assign=True)

    def forward(self, x: Tensor, expert: Tensor, gate: Tensor) -> Tensor:
        y: Tensor = self.experts(x, expert, gate.to(x.dtype))
        return y
