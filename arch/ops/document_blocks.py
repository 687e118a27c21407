"""Blocks of consecutive tokens, counted from the start of each document."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..contracts import documents

ABSENT = -2  # no token's document: padding has -1


class Blocks(NamedTuple):
    """The n = seq // size blocks that a row can have at most, in order; (1 or b, ...) as the positions they are made from.

    Where a row has fewer, the others are absent: their document is one that no token has, and the rest of them means nothing.
    """

    document: Tensor  # (1 or b, n), as documents() counts them
    number: Tensor  # (1 or b, n) in its document, from 0
    tokens: Tensor  # (1 or b, n, size) where in the row they stand
    of_token: Tensor  # (1 or b, seq) the block that each token is in; n = in none

    @property
    def present(self) -> Tensor:
        """(1 or b, n) boolean."""
        return self.document != ABSENT


def complete_blocks(positions: Tensor, size: int) -> Blocks:
    """The blocks all of whose tokens, at positions number * size to number * size + size - 1 of one document, are there."""
    seq, rest, document = positions.shape[1], size - 1, documents(positions)
    row = torch.arange(seq, device=positions.device)
    ends = (positions % size == rest) & (positions >= 0)
    for of_token, ahead in ((positions, rest), (document, 0)):  # its first token stands where it should, in the same document
        ends = ends & (of_token - F.pad(of_token, (rest, 0), value=ABSENT)[:, :seq] == ahead)
    n = seq // size
    last = torch.where(ends, row, seq).sort(dim=1).values[:, :n]  # a row's ends in order, then seq
    present, last = last < seq, last.clamp(max=seq - 1)
    tokens = (last[..., None] - torch.arange(rest, -1, -1, device=last.device)).clamp(min=0)
    end = (row + rest - positions % size).clamp(max=seq - 1)  # of the block that the token would be in
    inside = ends.gather(1, end) & (positions >= 0)
    return Blocks(
        document=document.gather(1, last).where(present, ABSENT),
        number=positions.gather(1, last) // size,
        tokens=tokens,
        of_token=torch.where(inside, ends.cumsum(1) - ends.long(), n),
    )
