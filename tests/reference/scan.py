"""Recurrences as their papers write them: one sequence, one token at a time, from the weights alone."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from arch.mixer import GRU, LSTM, Mamba


def plain_rnn(layer: GRU | LSTM, x: Tensor, positions: Tensor | None = None) -> Tensor:
    """What layer(x, positions=positions) has to be."""
    token = gru_token if isinstance(layer, GRU) else lstm_token
    rows = []
    for b in range(x.shape[0]):
        h = c = torch.zeros_like(x[b, 0])
        outputs = []
        for t, starts in enumerate(starts_of(positions, b, x.shape[1])):
            h, c = (torch.zeros_like(h), torch.zeros_like(c)) if starts else (h, c)
            h, c = token(layer, x[b, t], h, c)
            outputs.append(h)
        rows.append(torch.stack(outputs))
    return torch.stack(rows)


def starts_of(positions: Tensor | None, row: int, seq: int) -> list[bool]:
    places = range(seq) if positions is None else positions[row].tolist()
    return [place == 0 for place in places]


def gates(layer: GRU | LSTM, x: Tensor, h: Tensor, n: int) -> list[tuple[Tensor, Tensor]]:
    """Per gate: W x + b and U h + b'."""
    d = x.shape[0]
    rows = [slice(i * d, (i + 1) * d) for i in range(n)]
    w, u, b, c = (getattr(layer.rnn, f"{name}_l0") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
    return [(w[i] @ x + b[i], u[i] @ h + c[i]) for i in rows]


def gru_token(layer: GRU | LSTM, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    (xr, hr), (xz, hz), (xn, hn) = gates(layer, x, h, 3)
    r, z = torch.sigmoid(xr + hr), torch.sigmoid(xz + hz)
    return (1 - z) * torch.tanh(xn + r * hn) + z * h, c


def lstm_token(layer: GRU | LSTM, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    i, f, g, o = (a + b for a, b in gates(layer, x, h, 4))
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def plain_scan(a: Tensor, b: Tensor, first: Tensor) -> Tensor:
    """h_t = a_t h_{t-1} + b_t along dimension 1."""
    h, states = first, []
    for t in range(a.shape[1]):
        h = a[:, t] * h + b[:, t]
        states.append(h)
    return torch.stack(states, dim=1)


def plain_selective_scan(
    dt: Tensor, A: Tensor, B: Tensor, C: Tensor, u: Tensor, first: Tensor, starts: Tensor
) -> tuple[Tensor, Tensor]:
    """Algorithm 2 of the Mamba paper, a token at a time: what is read, and the last state."""
    h, outputs = first, []
    for t in range(u.shape[1]):
        h = h * ~starts[:, t, None, None]
        h = torch.exp(dt[:, t, :, None] * A) * h + (dt * u)[:, t, :, None] * B[:, t, None]
        outputs.append((h * C[:, t, None]).sum(-1))
    return torch.stack(outputs, dim=1), h


def plain_mamba(layer: Mamba, x: Tensor, positions: Tensor | None = None) -> Tensor:
    """What layer(x, positions=positions) has to be."""
    d_inner, d_state = layer.A_log.shape
    assert layer.conv1d.bias is not None
    kernel = layer.conv1d.weight[:, 0]  # (d_inner, d_conv), the newest token last
    rows = []
    for b in range(x.shape[0]):
        window: list[Tensor] = []
        h, outputs = torch.zeros(d_inner, d_state, dtype=x.dtype), []
        for t, starts in enumerate(starts_of(positions, b, x.shape[1])):
            window, h = ([], torch.zeros_like(h)) if starts else (window, h)
            u, z = (layer.in_proj.weight @ x[b, t]).split(d_inner)
            window = [*window, u][-kernel.shape[1] :]
            u = F.silu(layer.conv1d.bias + (torch.stack(window, dim=1) * kernel[:, -len(window) :]).sum(1))
            rank, into, out = (layer.x_proj.weight @ u).split((layer.dt_proj.shape[1], d_state, d_state))
            dt = torch.log1p(torch.exp(layer.dt_proj @ rank + layer.dt_bias))
            h = torch.exp(dt[:, None] * -torch.exp(layer.A_log)) * h + dt[:, None] * into[None] * u[:, None]
            outputs.append(layer.o_proj.weight @ ((h @ out + layer.D * u) * F.silu(z)))
        rows.append(torch.stack(outputs))
    return torch.stack(rows)
