"""Latent attention as its paper writes it: head by head, every key and value written out, from the weights alone."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from arch.mixer import MLA

from .attention import rotated_by, visible


def rms_normed(x: Tensor, weight: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * weight


def plain_mla(layer: MLA, x: Tensor, positions: Tensor | None = None) -> Tensor:
    """What layer(x, positions=positions) has to be, with rotary frequencies of base 10000."""
    rotate = rotated_by([10000.0 ** (-2 * j / layer.d_rope) for j in range(layer.d_rope // 2)])
    rows = []
    for b in range(x.shape[0]):
        places = list(range(x.shape[1])) if positions is None else positions[b].tolist()
        hidden = torch.where(visible(places, lambda i, j: j <= i), 0.0, -math.inf)
        from_x = x[b]
        if layer.d_q_latent is None:
            queries = F.linear(from_x, layer.q_proj.weight)
        else:
            q_latent = rms_normed(F.linear(from_x, layer.q_down_proj.weight), layer.q_norm.weight)
            queries = F.linear(q_latent, layer.q_up_proj.weight)
        down = F.linear(from_x, layer.kv_down_proj.weight)
        latent = rms_normed(down[:, : layer.d_latent], layer.kv_norm.weight)
        k_rotated = rotate(down[:, layer.d_latent :], places)
        d_q, d_kv = layer.d_nope + layer.d_rope, layer.d_nope + layer.d_v
        heads = []
        for h in range(layer.n_heads):
            q = queries[:, h * d_q : h * d_q + layer.d_nope]
            q_rotated = rotate(queries[:, h * d_q + layer.d_nope : (h + 1) * d_q], places)
            up = layer.kv_up_proj.weight[h * d_kv : (h + 1) * d_kv]
            k, v = F.linear(latent, up[: layer.d_nope]), F.linear(latent, up[layer.d_nope :])
            scores = (q @ k.T + q_rotated @ k_rotated.T) / math.sqrt(d_q)
            heads.append((scores + hidden).softmax(-1) @ v)
        rows.append(F.linear(torch.cat(heads, dim=-1), layer.o_proj.weight))
    return torch.stack(rows)
