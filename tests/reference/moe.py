"""The plain twins of routing and experts: Python loops, one token or one expert at a time."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from arch.contracts import Routing
from arch.ffn import Experts, MoE
from arch.ops.activation import ACTIVATIONS


def grouped_matmul(x: Tensor, weight: Tensor, counts: Tensor) -> Tensor:
    pieces, start = [], 0
    for expert, rows in enumerate(counts.tolist()):
        pieces.append(x[start : start + rows] @ weight[expert].T)
        start += rows
    return torch.cat([*pieces, x.new_zeros(x.shape[0] - start, weight.shape[1])])


def expert_bank(
    x: Tensor, token: Tensor, gate: Tensor, counts: Tensor, inward: list[Tensor], outward: Tensor, activation: str
) -> Tensor:
    y = [x.new_zeros(outward.shape[1]) for _ in x]
    rows = zip(token.tolist(), gate, strict=True)
    for expert, n_rows in enumerate(counts.tolist()):
        for _ in range(n_rows):
            t, g = next(rows)
            y[t] = y[t] + g * one_expert(x[t], [matrix[expert] for matrix in inward], outward[expert], activation)
    return torch.stack(y)


def one_expert(x: Tensor, inward: list[Tensor], outward: Tensor, activation: str) -> Tensor:
    first, *others = (x @ matrix.T for matrix in inward)
    hidden = ACTIVATIONS[activation](first)
    return math.prod(others, start=hidden) @ outward.T


def expert(experts: Experts, index: int, x: Tensor) -> Tensor:
    inward = [bank[index] for bank in (experts.gate_proj, experts.up_proj) if bank is not None]
    return one_expert(x, inward, experts.down_proj[index], experts.activation)


def moe(module: MoE, x: Tensor) -> Tensor:
    """Assignment by assignment, in the order of the routing."""
    tokens = x.flatten(0, -2)
    routing = module.router(tokens)
    out = [torch.zeros_like(token) for token in tokens]
    for token, index, gate in zip(routing.token.tolist(), routing.expert.tolist(), routing.gate, strict=True):
        if index < module.experts.n_experts:
            out[token] = out[token] + gate * expert(module.experts, index, tokens[token])
    y = torch.stack(out).view_as(x)
    return y if module.shared is None else y + module.shared(x)


def softmax(row: list[float]) -> list[float]:
    powers = [math.exp(value) for value in row]
    return [power / sum(powers) for power in powers]


def best(row: list[float], k: int) -> list[int]:
    return sorted(range(len(row)), key=lambda i: -row[i])[:k]


def choices(routing: Routing) -> list[tuple[int, int, float]]:
    """(token, expert, gate), sorted: what a routing says, whatever its order."""
    columns = (routing.token.tolist(), routing.expert.tolist(), routing.gate.tolist())
    return sorted(zip(*columns, strict=True))


def topk(logits: Tensor, k: int, softmax_before: bool) -> list[tuple[int, int, float]]:
    found = []
    for token, row in enumerate(logits.tolist()):
        chosen = best(row, k)
        gates = [softmax(row)[e] for e in chosen] if softmax_before else softmax([row[e] for e in chosen])
        found += [(token, e, gate) for e, gate in zip(chosen, gates, strict=True)]
    return sorted(found)


def switch(logits: Tensor, k: int, capacity: int) -> list[tuple[int, int, float]]:
    """Switch; for k = 2 GShard's algorithm 1, one loop over the tokens for each choice, without its random dispatch."""
    n_experts = logits.shape[1]
    room = [capacity] * n_experts
    found = []
    for choice in range(k):
        for token, row in enumerate(logits.tolist()):
            chosen = best(row, k)
            e = chosen[choice]
            gate = softmax(row)[e] / (sum(softmax(row)[i] for i in chosen) if k > 1 else 1)
            found.append((token, e, gate) if room[e] else (token, n_experts, 0.0))
            room[e] -= bool(room[e])
    return sorted(found)


def expert_choice(logits: Tensor, capacity: int) -> list[tuple[int, int, float]]:
    score = [softmax(row) for row in logits.tolist()]
    return sorted(
        (token, e, score[token][e]) for e in range(logits.shape[1]) for token in best([row[e] for row in score], capacity)
    )


def balanced(logits: Tensor, bias: Tensor, k: int) -> list[tuple[int, int, float]]:
    found = []
    for token, row in enumerate(logits.tolist()):
        score = [1 / (1 + math.exp(-value)) for value in row]
        chosen = best([s + b for s, b in zip(score, bias.tolist(), strict=True)], k)
        found += [(token, e, score[e] / sum(score[i] for i in chosen)) for e in chosen]
    return sorted(found)
