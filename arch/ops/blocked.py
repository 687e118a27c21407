"""Attention that skips the blocks of keys which no query of a block may see.

The plain twin scores every pair and hides what the mask forbids. Here each block of queries meets only the key blocks that its
pattern picks; inside those the same rule decides, so both give the same numbers.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..contracts import Pattern, Position, documents
from ..score import Score

# Gathering keys and values costs copies: measured on a CPU at 256 to 1024 tokens, skipping gains where a query meets less than
# about 0.6 of the keys and loses above.
MOST_MET = 0.5


class Sight(NamedTuple):
    """Who sees whom: the places of the queries (..., q), those of the keys (..., k), and the allowed pairs (..., q, k)."""

    q_positions: Tensor
    k_positions: Tensor
    allowed: Tensor

    def mask(self, position: Position, dtype: torch.dtype) -> Tensor:
        """(..., 1, q, k) boolean; or, where the position has a bias, (..., h, q, k) with -inf on the pairs not allowed."""
        bias = position.bias(self.q_positions, self.k_positions)
        allowed = self.allowed.unsqueeze(-3)
        return allowed if bias is None else bias.to(dtype).masked_fill(~allowed, float("-inf"))


class Plan(NamedTuple):
    """For texts of one length: block i of ``size`` queries meets the key blocks picks[i], -1 for none."""

    size: int
    picks: Tensor  # (n, p)
    sight: Sight  # of a text that is one document: (1, n, ...)


def whole_sight(pattern: Pattern, q_positions: Tensor, k_positions: Tensor, *, packed: bool) -> Sight:
    """The plain twin's: every query, the last of the keys, against every key; positions (1 or b, q) and (1 or b, k)."""
    allowed = pattern.allows(q_positions, k_positions)  # (1 or b, q, k)
    if packed:
        document = documents(k_positions)
        allowed = allowed & (document[:, -q_positions.shape[1] :, None] == document[:, None, :])
    return Sight(q_positions, k_positions, allowed)


def recall_plan(
    memo: dict[tuple[int, torch.device], Plan | None], pattern: Pattern, seq: int, device: torch.device
) -> Plan | None:
    """make_plan, once for each of the last few lengths."""
    if torch.compiler.is_compiling():  # the plan becomes part of the graph; a memo would only make it compile twice
        return make_plan(pattern, seq, device)
    if (seq, device) not in memo:
        if len(memo) == 8:
            memo.clear()
        with torch.inference_mode(False):  # so that a plan made in evaluation serves training too
            memo[seq, device] = make_plan(pattern, seq, device)
    return memo[seq, device]


def make_plan(pattern: Pattern, seq: int, device: torch.device) -> Plan | None:
    """None where skipping would not pay."""
    blocks = pattern.blocks(seq)
    if blocks is None or blocks[0] * blocks[1].shape[1] > MOST_MET * seq:
        return None
    size, picks = blocks[0], blocks[1].to(device)
    return Plan(size, picks, local_sight(pattern, torch.arange(seq, device=device)[None], size, picks))


def local_sight(pattern: Pattern, positions: Tensor, size: int, picks: Tensor) -> Sight:
    """positions (b, s) -> what each block of queries sees in the p key blocks it meets: (b, n, size, p * size)."""
    n_blocks, met = picks.shape[0], picks.clamp(min=0)
    # A padded token has place 0, which makes it a document of its own: it sees itself, so that no row is all hidden, alone.
    positions = F.pad(positions, (0, n_blocks * size - positions.shape[1])).unflatten(1, (n_blocks, size))  # (b, n, size)
    document = documents(positions.flatten(1)).view_as(positions)
    k_positions, k_document = (t[:, met].flatten(2) for t in (positions, document))  # (b, n, p * size)
    allowed = pattern.allows(positions, k_positions) & (document[..., :, None] == k_document[..., None, :])
    present = (picks >= 0).repeat_interleave(size, dim=1)  # (n, p * size)
    return Sight(positions, k_positions, allowed & present[:, None])


def attend_blocks(q: Tensor, k: Tensor, v: Tensor, *, plan: Plan, mask: Tensor, score: Score) -> Tensor:
    """q (b, h, s, d), k and v (b, g, s, d), mask (1 or b, n, 1 or h, size, p * size) -> (b, h, s, d)."""
    batch, _, seq, _ = q.shape
    n_blocks, n_picked = plan.picks.shape
    padding = n_blocks * plan.size - seq
    if padding:
        q, k, v = (F.pad(t, (0, 0, 0, padding)) for t in (q, k, v))
    q, k, v = (t.unflatten(2, (n_blocks, plan.size)) for t in (q, k, v))  # (b, h, n, size, d), twice (b, g, n, size, d)
    met = plan.picks.clamp(min=0).flatten()
    k, v = (t.index_select(2, met).unflatten(2, (n_blocks, n_picked)).flatten(3, 4) for t in (k, v))
    q, k, v = (t.transpose(1, 2).flatten(0, 1) for t in (q, k, v))  # (b n, h, size, d), twice (b n, g, p size, d)
    y = score.attend(q, k, v, mask=mask.expand(batch, -1, -1, -1, -1).flatten(0, 1))
    return y.unflatten(0, (batch, n_blocks)).transpose(1, 2).flatten(2, 3)[:, :, :seq]
