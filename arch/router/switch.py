"""The router with one expert per token and a limit on what each expert takes."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..contracts import Routing
from .linear import LinearRouter, token_choice


class Switch(LinearRouter):
    """Each token meets its best expert, unless that is full: then only the residual carries it on.

    gate = softmax(W x)_e,   e = argmax;   an expert takes the first ceil(capacity_factor * t * top_k / n_experts) that want it

    Paper: Fedus 2021, arXiv:2101.03961 (eqs. 1-3). Differs: evaluation drops nothing, so that the score of a text does not
    depend on the batch around it (the paper drops at factor 2); no jitter on the input. top_k = 2 is GShard's, without chance.
    Cost per token: d_model * n_experts parameters and as many multiply-adds, no state.
    Args:   d_model: channels of each token. n_experts: experts to choose from. top_k: experts per token.
            capacity_factor: room of an expert in training, as a multiple of an even share.
    Shape:  x: (t, d_model) -> Routing of t * top_k assignments, those dropped with expert = n_experts and gate = 0
    Raises: ValueError: top_k is not in 1..n_experts; capacity_factor is not positive.
    """

    top_k: int

    def __init__(self, *, d_model: int, n_experts: int, top_k: int = 1, capacity_factor: float = 1.25) -> None:
        if capacity_factor <= 0:
            raise ValueError(f"capacity_factor={capacity_factor}: choose a positive number, 1 is an even share")
        super().__init__(d_model=d_model, n_experts=n_experts, top_k=top_k)
        self.capacity_factor = capacity_factor

    def forward(self, x: Tensor) -> Routing:
        logits = self.logits(x)  # (t, e)
        gate, expert = logits.softmax(-1).topk(self.top_k)
        routing = token_choice(logits, expert, gate)
        return self.drop(routing) if self.training else routing

    def drop(self, routing: Routing) -> Routing:
        """Turn away whoever comes, in the order of the tokens, after an expert is full."""
        capacity = math.ceil(self.capacity_factor * routing.expert.shape[0] / self.n_experts)
        wanted = routing.expert.unsqueeze(-1) == torch.arange(self.n_experts, device=routing.expert.device)  # (a, e)
        place = wanted.cumsum(0).gather(1, routing.expert.unsqueeze(-1)).squeeze(-1)  # 1 for the first in an expert's queue
        full = place > capacity
        return routing._replace(
            expert=routing.expert.masked_fill(full, self.n_experts), gate=routing.gate.masked_fill(full, 0.0)
        )
