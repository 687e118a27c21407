"""Global, window and random blocks."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from ..contracts import Part, Pattern


class BlockSparse(Pattern):
    """A few global tokens, a window of blocks and a few random blocks: sparse, yet any two tokens are close in the graph.

    allows(i, j) = j < n_global or block(i) - block(j) < window_blocks or block(j) in random(block(i)), and j <= i where
    causal; otherwise the window reaches both ways and the global tokens see every key

    Paper: Zaheer 2020, arXiv:2007.14062 (section 2). Differs: the random blocks are drawn, with replacement, among those before
    the window by a hash of the block's number, so that they never depend on the text's length and decoding equals training.
    Cost per token: about n_global + (window_blocks + n_random) * block pairs.
    Args:   block: tokens. n_global: tokens at the start that all see. window_blocks: blocks each block sees on one side,
            itself included. n_random: blocks drawn for each block. seed: of the draw. causal: whether keys ahead are hidden.
    Shape:  positions (..., queries), (..., keys) -> boolean (..., queries, keys)
    Raises: ValueError: block or window_blocks below 1, n_global or n_random below 0.
    """

    def __init__(
        self, *, block: int, n_global: int, window_blocks: int, n_random: int, seed: int = 0, causal: bool = True
    ) -> None:
        super().__init__()
        if block < 1 or window_blocks < 1:
            raise ValueError(f"block is {block} and window_blocks is {window_blocks}: at least 1 is needed for both")
        if n_global < 0 or n_random < 0:
            raise ValueError(f"n_global is {n_global} and n_random is {n_random}: at least 0 is needed for both")
        if n_random > 1000:
            raise ValueError(f"n_random is {n_random}: at most 1000 is possible, the draws of a block are looked at one by one")
        self.block = block
        self.n_global = n_global
        self.window_blocks = window_blocks
        self.n_random = n_random
        self.seed = seed
        self.causal = causal

    def allows(self, q_positions: Tensor, k_positions: Tensor) -> Tensor:
        q, k = q_positions[..., :, None], k_positions[..., None, :]  # (..., q, 1), (..., 1, k)
        q_block, k_block = q // self.block, k // self.block
        seen = (k < self.n_global) | ((q_block - k_block).abs() < self.window_blocks)  # (..., q, k)
        for drawn in self.random_blocks(q_block).unbind(-1):
            seen = seen | (k_block == drawn)
        return seen & (k <= q) if self.causal else seen | (q < self.n_global)

    def random_blocks(self, q_block: Tensor) -> Tensor:
        """Numbers of blocks (...) -> the blocks drawn for each (..., n_random)."""
        x = q_block[..., None] * self.n_random + torch.arange(self.n_random, device=q_block.device)
        x = (x + (self.seed * 0x9E3779B1 & 0x7FFFFFFF)) & 0x7FFFFFFF  # 31 bits: a product with a 32-bit number cannot overflow
        for multiplier in (0x7FEB352D, 0x846CA68B):
            x = ((x ^ (x >> 15)) * multiplier) & 0x7FFFFFFF
        return (x ^ (x >> 16)) % (q_block[..., None] - self.window_blocks + 1).clamp(min=1)

    def parts(self, seq: int) -> Sequence[Part]:
        if not self.causal and self.n_global:
            return ()  # the global tokens see everything: their rows would be as long as the text
        n_blocks = -(-seq // self.block)
        row = torch.arange(n_blocks)[:, None]
        near = row + torch.arange(1 - self.window_blocks, 1 if self.causal else self.window_blocks)
        first = torch.arange(-(-self.n_global // self.block)).expand(n_blocks, -1)
        index = torch.cat((first, near, self.random_blocks(row[:, 0])), dim=1).sort(dim=1).values
        repeated = F.pad(index[:, 1:] == index[:, :-1], (1, 0))
        allowed = (index >= 0) & (index < n_blocks) & ~repeated
        return [Part(self.block, index.where(allowed & (index <= row) if self.causal else allowed, -1))]

    def pairs(self, seq: int) -> int:
        return _pairs(
            block=self.block,
            n_global=self.n_global,
            window_blocks=self.window_blocks,
            n_random=self.n_random,
            seed=self.seed,
            causal=self.causal,
            seq=seq,
        )


@lru_cache(maxsize=256)
def _pairs(*, block: int, n_global: int, window_blocks: int, n_random: int, seed: int, causal: bool, seq: int) -> int:
    """Counted once for all layers, by blocks: a (seq, seq) mask would take minutes for a long text."""
    pattern = BlockSparse(
        block=block, n_global=n_global, window_blocks=window_blocks, n_random=n_random, seed=seed, causal=causal
    )
    total, n_global = 0, min(n_global, seq)
    # Numbers are needed, also while a model is built on the meta device.
    for row in torch.arange(-(-seq // block), device="cpu").split(2**14):
        queries = (seq - row * block).clamp(max=block)
        start, end = (
            (row - window_blocks + 1).clamp(min=0) * block,
            ((row + window_blocks) * block).clamp(max=seq),
        )  # of the window
        drawn = pattern.random_blocks(row).sort(dim=1).values  # (rows, n_random), all of them before the window or at its start
        new = F.pad(drawn[:, 1:] != drawn[:, :-1], (1, 0), value=True) & (drawn * block < start[:, None])
        rest = (block - (n_global - drawn * block).clamp(0, block)) * new  # the global tokens are counted for themselves
        seen = start.clamp(max=n_global) + rest.sum(1)  # keys before the window
        if causal:
            total += int((queries * (seen + row * block - start) + queries * (queries + 1) // 2).sum())
        else:
            seen = seen + end - start + (n_global - end).clamp(min=0)
            sees_all = (n_global - row * block).clamp(min=0).minimum(queries)
            total += int((sees_all * seq + (queries - sees_all) * seen).sum())
    return total
