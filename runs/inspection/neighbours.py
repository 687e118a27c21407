"""The nearest tokens in the embedding table."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Neighbour(NamedTuple):
    token: int
    similarity: float


def neighbours(table: Tensor, token: int, k: int = 10) -> list[Neighbour]:
    """The k tokens whose rows have the largest cosine similarity with the token's own, itself first.

    Args:   table: (vocab_size, d_model).
    Raises: ValueError: a token that is not in the table; k is below 1.
    """
    if not 0 <= token < len(table):
        raise ValueError(f"token {token}: the table has rows 0 to {len(table) - 1}")
    if k < 1:
        raise ValueError(f"k={k}: at least 1 neighbour is expected")
    rows = F.normalize(table.detach().double(), dim=-1)
    similarity = rows @ rows[token]
    # itself before a copy of it; otherwise the lower number first where equal
    order = similarity.index_fill(0, torch.tensor(token), torch.inf).sort(descending=True, stable=True).indices
    return [Neighbour(int(i), float(similarity[i])) for i in order[:k]]
