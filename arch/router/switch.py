"""The router with one expert per token and a limit on what each expert takes."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor

from ..contracts import Routing
from .linear import MILLION, LinearRouter, dropped_where, room, token_choice


class Switch(LinearRouter):
    """Each token meets its best expert, unless that is full: then only the residual carries it on.

    gate = softmax(W x)_e,   e = argmax;   an expert takes the first ceil(capacity_factor * t * top_k / n_experts) that want it
    top_k > 1: gate_e = softmax(W x)_e / sum of the chosen;   all first choices are served before any second one

    Paper: Fedus 2021, arXiv:2101.03961 (eqs. 1-3); top_k = 2: Lepikhin 2020, arXiv:2006.16668 (GShard, algorithm 1). Differs:
    evaluation drops nothing, so that the score of a text does not depend on the batch around it (Switch drops at factor 2);
    no jitter on the input; second choices are served whatever their gate, where GShard leaves small ones to chance.
    Cost per token: d_model * n_experts parameters and as many multiply-adds, no state.
    Args:   d_model: channels of each token. n_experts: experts to choose from. top_k: experts per token.
            capacity_factor: room of an expert in training, as a multiple of an even share of the tokens, padding left out.
    Shape:  x: (t, d_model) -> Routing of t * top_k assignments, those dropped with expert = n_experts and gate = 0
    Raises: ValueError: top_k is not in 1..n_experts; capacity_factor is not positive, or counts no millionth.
    """

    top_k: int

    def __init__(self, *, d_model: int, n_experts: int, top_k: int = 1, capacity_factor: float = 1.25) -> None:
        if not 1 / MILLION <= capacity_factor <= MILLION:
            raise ValueError(f"capacity_factor={capacity_factor}: choose a positive number, 1 is an even share")
        super().__init__(d_model=d_model, n_experts=n_experts, top_k=top_k)
        self.capacity_factor = capacity_factor

    def forward(self, x: Tensor, real: Tensor | None = None) -> Routing:
        logits = self.logits(x)  # (t, e)
        gate, expert = logits.softmax(-1).topk(self.top_k)  # (t, k)
        if self.top_k > 1:
            gate = gate / gate.sum(-1, keepdim=True)
        routing = token_choice(logits, expert, gate, real)
        return self.drop(routing) if self.training else routing

    def drop(self, routing: Routing) -> Routing:
        """Turn away whoever comes after an expert is full: first choices go first, each in the order of the tokens."""
        k, real = self.top_k, routing.real
        share = (self.capacity_factor * k, self.n_experts)
        capacity = room(routing.logits.shape[0], *share) if real is None else room(real.sum(), *share)
        wanted = routing.expert.unsqueeze(-1) == torch.arange(self.n_experts, device=routing.expert.device)  # (a, e)
        wanted = rearrange(wanted, "(t k) e -> (k t) e", k=k)
        rank = (wanted.cumsum(0) * wanted).sum(-1)  # in an expert's queue, from 1; padding stands in none
        return dropped_where(routing, rearrange(rank > capacity, "(k t) -> (t k)", k=k))
