"""Blocks of consecutive tokens, counted from the start of each document."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..contracts import documents


class Blocks(NamedTuple):
    """The n = seq // size blocks that a row can have at most, in order; (1 or b, ...) as the positions they are made from.

    What a row has fewer of is absent: its document is -1, which no token's is, and the rest of it means nothing.
    """

    document: Tensor  # (1 or b, n), as told by documents()
    number: Tensor  # (1 or b, n) in its document, from 0
    tokens: Tensor  # (1 or b, n, size) where in the row they stand
    of_token: Tensor  # (1 or b, seq) the block that each token is in; n = in none


def finished_blocks(positions: Tensor, size: int) -> Blocks:
    """The blocks whose tokens, places number * size to number * size + size - 1 of one document, are all there."""
    seq, rest, document = positions.shape[1], size - 1, documents(positions)
    row = torch.arange(seq, device=positions.device)
    ends = positions % size == rest
    for of_token, ahead in ((positions, rest), (document, 0)):  # its first token stands where it should, in the same document
        ends = ends & (of_token - F.pad(of_token, (rest, 0), value=-1)[:, :seq] == ahead)
    n = seq // size
    last = torch.where(ends, row, seq).sort(dim=1).values[:, :n]  # a row's ends in order, then seq
    present, last = last < seq, last.clamp(max=seq - 1)
    tokens = (last[..., None] - torch.arange(rest, -1, -1, device=last.device)).clamp(min=0)
    end = (row + rest - positions % size).clamp(max=seq - 1)  # of the block that the token would be in
    inside = ends.gather(1, end)
    return Blocks(
        document=document.gather(1, last).where(present, -1),
        number=positions.gather(1, last) // size,
        tokens=tokens,
        of_token=torch.where(inside, ends.cumsum(1) - ends.long(), n),
    )
