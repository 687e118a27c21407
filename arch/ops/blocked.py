"""Attention that skips the blocks of keys which no query of a block may see.

The plain twin scores every pair and hides what the mask forbids. Here each block of queries attends only to the key blocks that
its pattern lists; inside those the same mask decides, so both give the same numbers. A pattern of several parts (near keys and
strided ones) is attended to part by part, as one softmax.

Letters beside the usual: n blocks of queries, c tokens of a block, p key blocks for each block of queries.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor

from ..contracts import Part, Pattern, Position, documents
from ..score import Score
from .joint import attend_jointly, has_joint_kernel

# Gathering keys and values costs copies: measured on a CPU at 256 to 1024 tokens, skipping gains where a query block attends to
# less than about 0.6 of the keys and loses above; of several parts, which are small and many, less than about a tenth.
MAX_KEY_SHARE = 0.5
JOINT = 0.2  # of that share


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
    """For texts of one length: what each block of queries attends to, part by part."""

    parts: Sequence[Part]
    masks: Sequence[Mask]  # of a text that is one document: (1, n, ...)


def full_mask(pattern: Pattern, q_positions: Tensor, k_positions: Tensor, *, packed: bool) -> Mask:
    """The plain twin's: every query, the last of the keys, against every key; positions (1 or b, q) and (1 or b, k)."""
    allowed = pattern.allows(q_positions, k_positions)  # (1 or b, q, k)
    if packed:
        document = documents(k_positions)
        allowed = allowed & (document[:, -q_positions.shape[1] :, None] == document[:, None, :])
    return Mask(allowed, q_positions, k_positions)


def cached_plan(
    plans: dict[tuple[int, torch.device], BlockPlan | None],
    pattern: Pattern,
    seq: int,
    device: torch.device,
    *,
    joins: bool = False,
) -> BlockPlan | None:
    """make_plan, once for each of the last few lengths."""
    if torch.compiler.is_compiling():  # the plan becomes part of the graph; a dictionary would only make it compile twice
        return make_plan(pattern, seq, device, joins=joins)
    if (seq, device) not in plans:
        if len(plans) == 8:
            plans.clear()
        with torch.inference_mode(False):  # so that a plan made in evaluation serves training too
            plans[seq, device] = make_plan(pattern, seq, device, joins=joins)
    return plans[seq, device]


def make_plan(pattern: Pattern, seq: int, device: torch.device, *, joins: bool = False) -> BlockPlan | None:
    """None where skipping would not pay. joins: whether several parts can be one softmax, as the score and the position are."""
    parts = [part._replace(key_blocks=part.key_blocks.to(device)) for part in pattern.parts(seq)]
    keys = sum(part.size * part.key_blocks.shape[1] for part in parts)  # that each query meets
    most = MAX_KEY_SHARE * seq if len(parts) == 1 else MAX_KEY_SHARE * JOINT * seq
    if not 0 < keys <= most or (len(parts) > 1 and not (joins and has_joint_kernel(device))):
        return None
    return BlockPlan(parts, block_masks(pattern, torch.arange(seq, device=device)[None], parts))


def block_masks(pattern: Pattern, positions: Tensor, parts: Sequence[Part]) -> list[Mask]:
    """positions (b, s) -> which keys each block of queries sees in its p key blocks: (b, n, c, p * c), for every part."""
    return [block_mask(pattern, positions, part, before=parts[:i]) for i, part in enumerate(parts)]


def block_mask(pattern: Pattern, positions: Tensor, part: Part, *, before: Sequence[Part] = ()) -> Mask:
    """Of one part. before: those whose pairs are not counted again."""
    key_blocks = part.key_blocks.clamp(min=0)
    # What fills the last block up is padding, a document of its own: it sees itself, so that no row is all hidden, alone.
    positions = F.pad(positions, (0, part.size * len(part.key_blocks) - positions.shape[1]), value=-1)
    place = torch.arange(positions.shape[1], device=positions.device)[None]
    of_query = [in_blocks(t, part) for t in (positions, documents(positions), place)]  # (1 or b, n, c)
    of_key = [rearrange(t[:, key_blocks], "b n p c -> b n (p c)") for t in of_query]
    (positions, document, place), (k_positions, k_document, k_place) = of_query, of_key
    allowed = pattern.allows(positions, k_positions) & (document[..., :, None] == k_document[..., None, :])
    present = repeat(part.key_blocks >= 0, "n p -> n 1 (p c)", c=part.size)
    for earlier in before:
        allowed = allowed & ~lists(earlier, place[..., :, None], k_place[..., None, :])
    return Mask(allowed & present, positions, k_positions)


def lists(part: Part, query: Tensor, key: Tensor) -> Tensor:
    """Whether a part lists these pairs of places in the text, integers that broadcast."""
    n_blocks = len(part.key_blocks)
    rows = n_blocks * part.size // part.stride  # tokens of one stride's remainder
    table = torch.zeros(n_blocks + 1, n_blocks + 1, dtype=torch.bool, device=part.key_blocks.device)  # the last one: none
    table[torch.arange(n_blocks, device=table.device)[:, None], part.key_blocks.where(part.key_blocks >= 0, n_blocks)] = True
    q_block, k_block = ((place % part.stride * rows + place // part.stride) // part.size for place in (query, key))
    return table[q_block.clamp(max=n_blocks), k_block.clamp(max=n_blocks)] & (k_block < n_blocks)


def in_blocks(t: Tensor, part: Part, dim: int = 1) -> Tensor:
    """Cut the tokens, which fill their blocks, along dim: (..., s, ...) -> (..., n, c, ...)."""
    if part.stride > 1:
        t = t.unflatten(dim, (-1, part.stride)).transpose(dim, dim + 1).flatten(dim, dim + 1)
    return t.unflatten(dim, (-1, part.size))


def attend_blocks(q: Tensor, k: Tensor, v: Tensor, *, parts: Sequence[Part], masks: Sequence[Tensor], score: Score) -> Tensor:
    """q (b, h, s, d), k and v (b, g, s, d), masks (1 or b, n, 1 or h, c, p * c) -> (b, h, s, d)."""
    seq = q.shape[2]
    cut = [(queries(q, part), keys(k, part), keys(v, part)) for part in parts]
    masks = [rearrange(mask.expand(len(q), -1, -1, -1, -1), "b n h c k -> (b n) h c k") for mask in masks]
    if len(parts) == 1:
        return whole(score.attend(*cut[0], mask=masks[0]), parts[0], seq)
    scale = score.factor(q.shape[-1])
    assert scale is not None  # make_plan was told
    return attend_jointly(
        cut,
        masks,
        scale=scale,
        cut=[lambda t, part=part: queries(t, part) for part in parts],  # type: ignore[misc]
        whole=[lambda t, part=part: whole(t, part, seq) for part in parts],  # type: ignore[misc]
    )


def queries(t: Tensor, part: Part) -> Tensor:
    """(b, h, s, d) -> (b * n, h, c, d)"""
    return rearrange(in_blocks(filled(t, part), part, dim=2), "b h n c d -> (b n) h c d")


def keys(t: Tensor, part: Part) -> Tensor:
    """(b, g, s, d) -> those that each block of queries meets (b * n, g, p * c, d)"""
    blocks = in_blocks(filled(t, part), part, dim=2).index_select(2, part.key_blocks.clamp(min=0).flatten())
    return rearrange(blocks, "b g (n p) c d -> (b n) g (p c) d", n=len(part.key_blocks))


def whole(t: Tensor, part: Part, seq: int) -> Tensor:
    """What ``queries`` has cut, in the text's order: (b * n, h, c, d) -> (b, h, s, d)"""
    t = rearrange(t, "(b n) h c d -> b h (n c) d", n=len(part.key_blocks))
    if part.stride > 1:
        t = t.unflatten(2, (part.stride, -1)).transpose(2, 3).flatten(2, 3)
    return t[:, :, :seq]


def filled(t: Tensor, part: Part) -> Tensor:
    """With zeros behind the last token, so that every block is full."""
    padding = len(part.key_blocks) * part.size - t.shape[2]
    return F.pad(t, (0, 0, 0, padding)) if padding else t
