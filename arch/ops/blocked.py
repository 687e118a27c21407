"""Attention that skips the blocks of keys which no query of a block may see.

The plain twin scores every pair and hides what the mask forbids. Here each block of queries attends only to the key blocks that
its pattern lists; inside those the same mask decides, so both give the same numbers.

Letters beside the usual: n blocks of queries, c tokens of a block, p key blocks for each block of queries.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor

from ..contracts import Pattern, Position, documents
from ..score import Score

# Gathering keys and values costs copies: measured on a CPU at 256 to 1024 tokens, skipping gains where a query block attends to
# less than about 0.6 of the keys and loses above.
MAX_KEY_SHARE = 0.5


class Mask(NamedTuple):
    """The allowed pairs (..., q, k), and the positions of their queries (..., q) and keys (..., k)."""

    allowed: Tensor
    q_positions: Tensor
    k_positions: Tensor

    def with_bias(self, position: Position, dtype: torch.dtype) -> Tensor:
        """(..., 1, q, k) boolean; or, where the position has a bias, (..., h, q, k) with -inf on the pairs not allowed."""
        bias = position.bias(self.q_positions, self.k_positions)
        allowed = self.allowed.unsqueeze(-3)
        return allowed if bias is None else bias.to(dtype).masked_fill(~allowed, float("-inf"))


class BlockPlan(NamedTuple):
    """For texts of one length: block i of ``size`` queries attends to the key blocks block_index[i], -1 for none."""

    size: int
    block_index: Tensor  # (n, p)
    mask: Mask  # of a text that is one document: (1, n, ...)


def full_mask(pattern: Pattern, q_positions: Tensor, k_positions: Tensor, *, packed: bool) -> Mask:
    """The plain twin's: every query, the last of the keys, against every key; positions (1 or b, q) and (1 or b, k)."""
    allowed = pattern.allows(q_positions, k_positions)  # (1 or b, q, k)
    if packed:
        document = documents(k_positions)
        allowed = allowed & (document[:, -q_positions.shape[1] :, None] == document[:, None, :])
    return Mask(allowed, q_positions, k_positions)


def cached_plan(
    plans: dict[tuple[int, torch.device], BlockPlan | None], pattern: Pattern, seq: int, device: torch.device
) -> BlockPlan | None:
    """make_plan, once for each of the last few lengths."""
    if torch.compiler.is_compiling():  # the plan becomes part of the graph; a dictionary would only make it compile twice
        return make_plan(pattern, seq, device)
    if (seq, device) not in plans:
        if len(plans) == 8:
            plans.clear()
        with torch.inference_mode(False):  # so that a plan made in evaluation serves training too
            plans[seq, device] = make_plan(pattern, seq, device)
    return plans[seq, device]


def make_plan(pattern: Pattern, seq: int, device: torch.device) -> BlockPlan | None:
    """None where skipping would not pay."""
    blocks = pattern.blocks(seq)
    if blocks is None or blocks[0] * blocks[1].shape[1] > MAX_KEY_SHARE * seq:
        return None
    size, block_index = blocks[0], blocks[1].to(device)
    return BlockPlan(size, block_index, block_mask(pattern, torch.arange(seq, device=device)[None], size, block_index))


def block_mask(pattern: Pattern, positions: Tensor, size: int, block_index: Tensor) -> Mask:
    """positions (b, s) -> which keys each block of queries sees in its p key blocks: (b, n, c, p * c)."""
    key_blocks = block_index.clamp(min=0)
    # What fills the last block up is padding, a document of its own: it sees itself, so that no row is all hidden, alone.
    positions = F.pad(positions, (0, len(block_index) * size - positions.shape[1]), value=-1)
    positions, document = (rearrange(t, "b (n c) -> b n c", c=size) for t in (positions, documents(positions)))
    k_positions, k_document = (rearrange(t[:, key_blocks], "b n p c -> b n (p c)") for t in (positions, document))
    allowed = pattern.allows(positions, k_positions) & (document[..., :, None] == k_document[..., None, :])
    present = repeat(block_index >= 0, "n p -> n 1 (p c)", c=size)
    return Mask(allowed & present, positions, k_positions)


def attend_blocks(q: Tensor, k: Tensor, v: Tensor, *, plan: BlockPlan, mask: Tensor, score: Score) -> Tensor:
    """q (b, h, s, d), k and v (b, g, s, d), mask (1 or b, n, 1 or h, c, p * c) -> (b, h, s, d)."""
    batch, _, seq, _ = q.shape
    n_blocks = len(plan.block_index)
    padding = n_blocks * plan.size - seq
    if padding:
        q, k, v = (F.pad(t, (0, 0, 0, padding)) for t in (q, k, v))
    key_blocks = plan.block_index.clamp(min=0).flatten()  # (n * p,)
    k, v = (rearrange(t, "b g (n c) d -> b g n c d", n=n_blocks).index_select(2, key_blocks) for t in (k, v))
    k, v = (rearrange(t, "b g (n p) c d -> (b n) g (p c) d", n=n_blocks) for t in (k, v))
    q = rearrange(q, "b h (n c) d -> (b n) h c d", n=n_blocks)
    mask = rearrange(mask.expand(batch, -1, -1, -1, -1), "b n h c k -> (b n) h c k")
    y = score.attend(q, k, v, mask=mask)
    return rearrange(y, "(b n) h c d -> b h (n c) d", n=n_blocks)[:, :, :seq]
