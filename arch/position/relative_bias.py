"""T5's relative position bias."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..contracts import Position
from ..limits import at_least_one
from .constant import Constant


class RelativeBias(Position):
    """Adds a learned number per head and distance to each score; distances share buckets that widen logarithmically.

    bias_h(i, j) = table[bucket(i - j), h]

    Paper: Raffel 2019, arXiv:1910.10683 (section 2.1). Differs: every layer has its own table, T5's layers share one.
    Cost per token: n_buckets * n_heads parameters in all, no matrix products, no state.
    Args:   n_heads: query heads. n_buckets: rows of the table, half of them exact distances; without causal, half of them
            each side. max_distance: tokens from which on all share the last bucket. causal: keys ahead share bucket 0.
    Shape:  positions (..., queries), (..., keys) -> (..., n_heads, queries, keys)
    Raises: ValueError: too few buckets, or max_distance within the exact ones.
    """

    def __init__(self, *, n_heads: int, n_buckets: int = 32, max_distance: int = 128, causal: bool = True) -> None:
        super().__init__()
        at_least_one(n_heads=n_heads)
        least = 2 if causal else 4
        if n_buckets < least or n_buckets % least:
            raise ValueError(f"n_buckets is {n_buckets}: a multiple of {least} is needed")
        exact = n_buckets // least
        if max_distance <= exact:
            raise ValueError(f"max_distance is {max_distance}: more than the {exact} exact distances is needed")
        if max_distance > 2**16:
            raise ValueError(f"max_distance is {max_distance}: at most {2**16} is possible, all are laid out")
        self.n_heads, self.n_buckets = n_heads, n_buckets
        self.max_distance = max_distance
        self.causal = causal
        self.table = nn.Parameter(torch.empty(n_buckets, n_heads))
        self.buckets = Constant([self.bucket(back) for back in range(-max_distance, max_distance + 1)], dtype=torch.long)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.normal_(self.table, std=0.02)

    def bucket(self, back: int) -> int:
        """Tokens that a key lies behind its query -> row of the table."""
        side = self.n_buckets if self.causal else self.n_buckets // 2  # rows for one direction
        exact = side // 2
        ahead = 0 if self.causal or back >= 0 else side
        distance = max(back, 0) if self.causal else abs(back)
        if distance < exact:
            return ahead + distance
        share = math.log(distance / exact) / math.log(self.max_distance / exact)
        return ahead + min(exact + int(share * (side - exact)), side - 1)

    def bias(self, q_positions: Tensor, k_positions: Tensor) -> Tensor:
        far = self.max_distance
        by_distance = self.table[self.buckets.tensor].T  # (h, 2 far + 1)
        back = (q_positions[..., :, None] - k_positions[..., None, :]).clamp(-far, far) + far  # (..., q, k)
        # Heads first: the gradient of this choice of columns is many times cheaper than that of an embedding's rows.
        return by_distance.index_select(1, back.flatten()).unflatten(1, back.shape).movedim(0, -3)
