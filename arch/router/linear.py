"""What learned routers share: fp32 scores of every expert by one linear map, and the layout of a choice."""

from __future__ import annotations

import contextlib
import math
from typing import TypeVar

import torch
from einops import repeat
from torch import Tensor, nn

from ..contracts import Cost, Router, Routing
from ..limits import at_least_one
from ..ops.linear import linear

Count = TypeVar("Count", int, Tensor)  # a tensor of one
MILLION = 10**6  # shares of tokens are counted in millionths


class LinearRouter(Router):
    """Scores every expert by a linear map of the token: logits = W x, in fp32 whatever the model computes in.

    The weights start small, N(0, 0.1 / d_model), as Fedus 2021, arXiv:2101.03961 (section 2.4) found to train best.

    Args:   d_model: channels of each token. n_experts: experts to choose from. top_k: experts per token.
    Raises: ValueError: top_k is not in 1..n_experts.
    """

    def __init__(self, *, d_model: int, n_experts: int, top_k: float) -> None:
        super().__init__()
        at_least_one(d_model=d_model, n_experts=n_experts)
        check_top_k(top_k, n_experts)
        self.n_experts, self.top_k = n_experts, top_k
        self.weight = nn.Parameter(torch.empty(n_experts, d_model))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        for weight in self.parameters():
            nn.init.normal_(weight, std=math.sqrt(0.1 / weight.shape[-1]))

    def logits(self, x: Tensor) -> Tensor:
        """(t, d_model) -> (t, n_experts)"""
        return fp32_linear(x, self.weight)

    def cost(self, seq: int) -> Cost:
        weights = sum(weight.numel() for weight in self.parameters())
        return Cost(params=weights, active_params=weights, flops=2 * weights)

    def extra_repr(self) -> str:
        return f"top {self.top_k} of {self.n_experts}"


def fp32_linear(x: Tensor, weight: Tensor) -> Tensor:
    """x W^T in fp32, under autocast too: two close logits that bf16 rounds to one value would be a wrong choice."""
    off = contextlib.nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False)
    with off:
        return linear(x.float(), weight.float())


def token_choice(logits: Tensor, expert: Tensor, gate: Tensor, real: Tensor | None) -> Routing:
    """The routing in which token i meets the experts of its row, unless it is padding. logits: (t, e), expert, gate: (t, k)."""
    token = repeat(torch.arange(expert.shape[0], device=expert.device), "t -> (t k)", k=expert.shape[1])
    routing = Routing(logits, token, expert.flatten(), gate.flatten(), real)
    return routing if real is None else dropped_where(routing, ~real[token])


def dropped_where(routing: Routing, lost: Tensor) -> Routing:
    """The routing without some of its assignments. lost: (a,) booleans"""
    n_experts = routing.logits.shape[-1]
    return routing._replace(expert=routing.expert.masked_fill(lost, n_experts), gate=routing.gate.masked_fill(lost, 0.0))


def room(n_tokens: Count, experts_per_token: float, n_experts: int) -> Count:
    """ceil(n_tokens * experts_per_token / n_experts): what each expert takes of as many tokens.

    In whole numbers, so that a count on the device, which the host does not wait for, gives what one on the host gives.
    """
    return -(-n_tokens * round(experts_per_token * MILLION) // (n_experts * MILLION))


def check_top_k(top_k: float, n_experts: int) -> None:
    if not 1 / MILLION <= top_k <= n_experts:
        raise ValueError(f"top_k={top_k} of n_experts={n_experts}: choose from 1 to {n_experts}")


def check_router_learns(top_k: int, n_experts: int) -> None:
    """Gates that sum to 1 over a single expert are constant: no gradient would reach the router."""
    if top_k == 1 < n_experts:
        raise ValueError(
            f"top_k=1 of n_experts={n_experts} with gates that sum to 1 gives the router no gradient: "
            "choose top_k of 2 or more, or a router whose softmax comes before the choice (topk, switch)"
        )
