"""Mixers whose state is a matrix per head, as their papers write them: one sequence, one head, one token at a time."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from arch.mixer import GatedDeltaNet, GatedLinearAttention, Mamba2
from tests.reference.scan import starts_of


def plain_attention(
    q: Tensor, k: Tensor, v: Tensor, decay: Tensor, state: Tensor, beta: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """(b, s, h, d) each, state (b, h, d_k, d_v): the delta rule where beta is given, else plain writing."""
    rows, last = [], []
    for b in range(q.shape[0]):
        heads, ends = [], []
        for h in range(v.shape[2]):
            outputs, S, group = [], state[b, h], h * q.shape[2] // v.shape[2]
            for t in range(q.shape[1]):
                key, S = k[b, t, group], decay[b, t, h].exp()[:, None] * S
                written = v[b, t, h] if beta is None else beta[b, t, h] * (v[b, t, h] - key @ S)
                S = S + torch.outer(key, written)
                outputs.append(q[b, t, group] @ S)
            heads.append(torch.stack(outputs))
            ends.append(S)
        rows.append(torch.stack(heads, dim=1))
        last.append(torch.stack(ends))
    return torch.stack(rows), torch.stack(last)


def by_document(mix: Callable[[Tensor], Tensor], x: Tensor, positions: Tensor | None) -> Tensor:
    """mix: (s, m) of one document -> (s, m), of each document of each row by itself."""
    rows = []
    for b in range(x.shape[0]):
        starts = starts_of(positions, b, x.shape[1])
        cuts = [0, *(t for t, start in enumerate(starts) if start and t), x.shape[1]]
        rows.append(torch.cat([mix(x[b, i:j]) for i, j in pairwise(cuts)]))
    return torch.stack(rows)


def plain_conv(conv: nn.Conv1d, x: Tensor) -> Tensor:
    """x: (s, channels) of one document."""
    taps = conv.weight.shape[2]
    outputs = []
    for t in range(x.shape[0]):
        y = torch.zeros_like(x[0]) if conv.bias is None else conv.bias
        for i in range(taps):
            if t - i >= 0:
                y = y + conv.weight[:, 0, taps - 1 - i] * x[t - i]
        outputs.append(y)
    return torch.stack(outputs)


def rms(x: Tensor, weight: Tensor) -> Tensor:
    return x / torch.sqrt((x**2).mean(-1, keepdim=True) + 1e-5) * weight


def unit(x: Tensor) -> Tensor:
    return x / torch.sqrt((x**2).sum(-1, keepdim=True) + 1e-6)


def plain_mamba2(layer: Mamba2, x: Tensor, positions: Tensor | None = None) -> Tensor:
    """What layer(x, positions=positions) has to be."""
    n_heads, d_state = len(layer.A_log), layer.d_state
    d_inner = n_heads * layer.d_head

    def mix(x: Tensor) -> Tensor:
        projected = x @ layer.in_proj.weight.T
        z, u, dt = projected[:, :d_inner], projected[:, d_inner:-n_heads], projected[:, -n_heads:]
        u = F.silu(plain_conv(layer.conv1d, u))
        shared = layer.n_groups * d_state
        B, C = u[:, d_inner : d_inner + shared], u[:, d_inner + shared :]
        dt, A = torch.log1p(torch.exp(dt + layer.dt_bias)), -torch.exp(layer.A_log)
        outputs = []
        for h in range(n_heads):
            group = slice(h * layer.n_groups // n_heads * d_state, (h * layer.n_groups // n_heads + 1) * d_state)
            S = torch.zeros(layer.d_head, d_state, dtype=x.dtype)
            own = u[:, h * layer.d_head : (h + 1) * layer.d_head]
            steps = []
            for t in range(x.shape[0]):
                S = torch.exp(dt[t, h] * A[h]) * S + dt[t, h] * torch.outer(own[t], B[t, group])
                steps.append(S @ C[t, group] + layer.D[h] * own[t])
            outputs.append(torch.stack(steps))
        y = torch.cat(outputs, dim=1) * F.silu(z)
        return rms(y, layer.norm.weight) @ layer.o_proj.weight.T

    return by_document(mix, x, positions)


def plain_gla(layer: GatedLinearAttention, x: Tensor, positions: Tensor | None = None) -> Tensor:
    """What layer(x, positions=positions) has to be."""

    def mix(x: Tensor) -> Tensor:
        q, k, v, r = (x @ p.weight.T for p in (layer.q_proj, layer.k_proj, layer.v_proj, layer.gate_proj))
        logits = x @ layer.decay_in_proj.weight.T @ layer.decay_proj.weight.T + layer.decay_proj.bias
        alpha = torch.sigmoid(logits) ** (1 / layer.tau)
        outputs = []
        for qh, kh, vh, ah in zip(*(part.chunk(layer.n_heads, dim=1) for part in (q, k, v, alpha)), strict=True):
            S = torch.zeros(qh.shape[1], vh.shape[1], dtype=x.dtype)
            steps = []
            for t in range(x.shape[0]):
                S = torch.diag(ah[t]) @ S + torch.outer(kh[t], vh[t])
                steps.append(qh[t] @ S / qh.shape[1] ** 0.5)
            outputs.append(rms(torch.stack(steps), layer.norm.weight))
        return (torch.cat(outputs, dim=1) * F.silu(r)) @ layer.o_proj.weight.T

    return by_document(mix, x, positions)


def plain_gated_delta_net(layer: GatedDeltaNet, x: Tensor, positions: Tensor | None = None) -> Tensor:
    """What layer(x, positions=positions) has to be; the state stands as in the paper, values by keys."""

    def mix(x: Tensor) -> Tensor:
        projected = torch.cat([x @ p.weight.T for p in (layer.q_proj, layer.k_proj, layer.v_proj)], dim=1)
        d_key = layer.q_proj.out_features
        q, k, v = F.silu(plain_conv(layer.conv1d, projected)).split((d_key, d_key, layer.v_proj.out_features), dim=1)
        q, k = (unit(part.unflatten(1, (layer.n_heads, -1))).flatten(1) for part in (q, k))
        beta = torch.sigmoid(x @ layer.beta_proj.weight.T)
        steps = torch.log1p(torch.exp(x @ layer.decay_proj.weight.T + layer.dt_bias))
        alpha = torch.exp(-torch.exp(layer.A_log) * steps)
        outputs = []
        for h, (qh, kh, vh) in enumerate(zip(*(part.chunk(layer.n_heads, dim=1) for part in (q, k, v)), strict=True)):
            S, eye = torch.zeros(vh.shape[1], kh.shape[1], dtype=x.dtype), torch.eye(kh.shape[1], dtype=x.dtype)
            heard = []
            for t in range(x.shape[0]):
                S = S @ (alpha[t, h] * (eye - beta[t, h] * torch.outer(kh[t], kh[t])))
                S = S + beta[t, h] * torch.outer(vh[t], kh[t])
                heard.append(S @ qh[t] / kh.shape[1] ** 0.5)
            outputs.append(rms(torch.stack(heard), layer.norm.weight))
        return (torch.cat(outputs, dim=1) * F.silu(x @ layer.gate_proj.weight.T)) @ layer.o_proj.weight.T

    return by_document(mix, x, positions)
