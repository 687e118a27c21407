"""One vector for a text, out of those of its tokens."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from arch import Encoder
from arch.contracts import longest_document

Pool = Literal["first", "last", "mean"]


def whole(model: nn.Module, x: Tensor) -> Tensor:
    """The first token's vector, through the encoder's pooler if it has one. (b, s, m) -> (b, m)"""
    return model.pooled(x) if isinstance(model, Encoder) and model.pooler is not None else x[:, 0]


def pooled(model: nn.Module, x: Tensor, positions: Tensor | None, pool: Pool) -> Tensor:
    """The vector of each row's text, padding left out. x: (b, s, m), positions: (b, s) or None -> (b, m)"""
    if pool == "first":
        return whole(model, x)
    if positions is None:
        return x[:, -1] if pool == "last" else x.mean(1)
    inside = longest_document(positions)  # a row holds one text; padding around it has place 0
    if pool == "last":
        last = inside.cumsum(-1).argmax(-1)  # (b,)
        return x.gather(1, last[:, None, None].expand(-1, -1, x.shape[-1]))[:, 0]
    share = inside.to(x.dtype)[..., None]  # (b, s, 1)
    return torch.sum(x * share, 1) / share.sum(1)
