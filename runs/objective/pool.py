"""One vector for a text, out of those of its tokens."""

from __future__ import annotations

from typing import Literal

import torch
from einops import repeat
from torch import Tensor, nn

from arch import Encoder
from arch.contracts import real

Pool = Literal["first", "last", "mean"]


def first_token(model: nn.Module, x: Tensor) -> Tensor:
    """The first token's vector, through the encoder's pooler if it has one. (b, s, m) -> (b, m)"""
    return model.pooled(x) if isinstance(model, Encoder) and model.pooler is not None else x[:, 0]


def pooled(model: nn.Module, x: Tensor, positions: Tensor | None, pool: Pool) -> Tensor:
    """The vector of each row's text, padding left out. x: (b, s, m), positions: (b, s) or None -> (b, m)"""
    if positions is None:
        return first_token(model, x) if pool == "first" else x[:, -1] if pool == "last" else x.mean(1)
    inside = real(positions)  # (b, s)
    if pool == "mean":
        share = inside.to(x.dtype)[..., None]  # (b, s, 1)
        return torch.sum(x * share, 1) / share.sum(1)
    count = inside.cumsum(-1)  # 1 at the first real token, largest from the last one on
    index = (count == 1).int().argmax(-1) if pool == "first" else count.argmax(-1)  # (b,)
    token = x.gather(1, repeat(index, "b -> b 1 m", m=x.shape[-1]))
    return first_token(model, token) if pool == "first" else token[:, 0]
