"""Native sparse attention: a coarse look at everything, a fine look at a few blocks, and a window."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

from ..contracts import Cache, Cost, Position, SequenceMixer, documents, parameters_only
from ..limits import at_least_one
from ..ops.blocked import BlockPlan, attend_blocks, block_masks, cached_plan, full_mask
from ..ops.document_blocks import Blocks, complete_blocks
from ..ops.linear import Linear
from ..pattern import SlidingWindow
from ..score import DotProduct
from ..score.score import products
from .cache import KVCache


class NativeSparse(SequenceMixer):
    """Each query attends to summaries of all complete blocks, to the tokens of the few blocks that these point at, and to
    the nearest tokens; gates weigh the three.

    y_i = W_o concat_h sum_c sigmoid(W_g x_i)_ch A_c(q_ih),  c = compressed, selected, window, with keys and values of their own
    A_compressed: over phi(k_B), phi(v_B) of the complete blocks B;  phi(x_1 .. x_l) = W_2 silu(W_1 [x_1 + e_1; ...; x_l + e_l])
    A_selected: over the tokens of top_n blocks: the query's own, the one before it, the first, and those with the largest
    weights in A_compressed, summed over the query heads that share a key head

    Paper: Yuan 2025, arXiv:2502.11089 (section 3). Differs: blocks do not overlap, and those compressed are those selected
    (l = d = l'); they are counted from the start of each document; keys are compressed before the rotation and rotated by
    the position of their last token; one linear layer gives the gates. No kernel of its own: in a whole text the selected
    keys are read through a mask, so that time and memory follow all pairs, while the stated cost follows those attended to.
    Cost per token: 2 * d_head * (d_model * (n_heads + 3 * n_kv_heads) + block * (d_head + 1) + d_head) + 3 * d_model * n_heads
    parameters; as many multiply-adds but for those with block, 2 * n_kv_heads * d_head^2 * (1 + 1 / block) to compress,
    2 * n_heads * d_head per pair; 2 * n_kv_heads * d_head numbers of state for each token, again for each of the last window
    and of the last block tokens, for each complete block and for one more.
    Args:   d_model: channels of each token. n_heads: query heads. n_kv_heads: key and value heads of each branch, each shared
            by n_heads / n_kv_heads query heads. d_head: channels of one head. block: tokens. top_n: blocks that a query
            selects. window: tokens that a query sees in its window, itself included. position: its rotation and its bias are
            used; None = none is applied here.
    Shape:  x: (batch, seq, d_model) -> (batch, seq, d_model)
    Raises: ValueError: n_kv_heads does not divide n_heads; a size below 1; top_n below 3.
    """

    outputs = ("o_proj.weight",)

    def __init__(
        self,
        *,
        d_model: int,
        n_heads: int,
        n_kv_heads: int,
        d_head: int,
        block: int,
        top_n: int,
        window: int,
        position: Position | None = None,
    ) -> None:
        super().__init__()
        at_least_one(d_model=d_model, n_heads=n_heads, n_kv_heads=n_kv_heads, d_head=d_head, block=block)
        if n_heads % n_kv_heads:
            raise ValueError(f"n_kv_heads {n_kv_heads} does not divide n_heads {n_heads}")
        if top_n < 3:
            raise ValueError(f"top_n is {top_n}: at least 3 is needed, the query's own block, the one before it and the first")
        self.n_heads, self.n_kv_heads, self.d_head, self.block, self.top_n = n_heads, n_kv_heads, d_head, block, top_n
        self.q_proj = Linear(d_model, n_heads * d_head, bias=False)
        self.k_proj = Linear(d_model, 3 * n_kv_heads * d_head, bias=False)
        self.v_proj = Linear(d_model, 3 * n_kv_heads * d_head, bias=False)
        self.gate_proj = Linear(d_model, 3 * n_heads, bias=False)
        self.k_compress = Compress(d_head=d_head, block=block)
        self.v_compress = Compress(d_head=d_head, block=block)
        self.o_proj = Linear(n_heads * d_head, d_model, bias=False)
        self.pattern = SlidingWindow(window=window)
        self.position = Position() if position is None else position
        self.score = DotProduct()
        self._plans: dict[tuple[int, torch.device], BlockPlan | None] = {}

    def forward(self, x: Tensor, *, positions: Tensor | None = None, cache: Cache | None = None) -> Tensor:
        assert cache is None or isinstance(cache, NativeSparseCache)
        start = 0 if cache is None else cache.selected.length
        q_positions = torch.arange(start, start + x.shape[1], device=x.device)[None] if positions is None else positions
        q = rearrange(self.q_proj(x), "b s (h d) -> b h s d", h=self.n_heads)
        k, v = (self._by_branch(proj(x), self.n_kv_heads) for proj in (self.k_proj, self.v_proj))  # (3, b, g, s, d)
        gates = self._by_branch(self.gate_proj(x).sigmoid(), self.n_heads)  # (3, b, h, s, 1)
        q, k_rotated = self.position.rotate(q, k[1:], q_positions, q_positions)

        if cache is None:
            compressed = self._compressed(k[0], v[0], q_positions)[:2]
            selected, window = (k_rotated[0], v[1], q_positions), (k_rotated[1], v[2], q_positions)
        else:
            compressed = cache.put(*self._compressed(*cache.incomplete.append(k[0], v[0], positions)))
            selected = cache.selected.append(k_rotated[0], v[1], positions)
            window = cache.window.append(k_rotated[1], v[2], positions)

        k_positions = selected[2]
        blocks, document = complete_blocks(k_positions, self.block), documents(k_positions)
        from_compressed, chosen = self._attend_compressed(q, *compressed, q_positions, document, blocks)
        from_selected = self._attend_selected(q, *selected, q_positions, document, chosen, blocks)
        from_window = self._attend_window(q, *window, q_positions, whole=cache is None)
        y = gates[0] * from_compressed + gates[1] * from_selected + gates[2] * from_window
        return self.o_proj(rearrange(y, "b h s d -> b s (h d)"))

    @staticmethod
    def _by_branch(projected: Tensor, n_heads: int) -> Tensor:
        return rearrange(projected, "b s (branch h d) -> branch b h s d", branch=3, h=n_heads)

    def _compressed(self, k: Tensor, v: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """k, v: (b, g, s, d) -> a key and a value for each complete block (b, g, n, d), and which are there (1 or b, n)."""
        blocks = complete_blocks(positions, self.block)
        token = rearrange(blocks.tokens, "b n l -> b 1 (n l) 1").expand(*k.shape[:2], -1, self.d_head)
        k, v = (rearrange(t.gather(2, token), "b g (n l) d -> b g n l d", l=self.block) for t in (k, v))
        k, v = self.k_compress(k), self.v_compress(v)
        last = last_positions(blocks, self.block)
        return self.position.rotate(k, k, last, last)[1], v, blocks.present

    def _attend_compressed(
        self, q: Tensor, k: Tensor, v: Tensor, q_positions: Tensor, document: Tensor, blocks: Blocks
    ) -> tuple[Tensor, Tensor]:
        """Over the complete blocks -> (b, h, s, d), and which of them each group of heads selects (b, g, s, n)."""
        k, v = (t[:, :, : blocks.number.shape[1]] for t in (k, v))
        position, last = q_positions[..., None], last_positions(blocks, self.block)
        visible = (document[:, -q.shape[2] :, None] == blocks.document[:, None]) & (last[:, None] <= position)  # (1 or b, s, n)
        scores = products(q, k) * self.d_head**-0.5  # (b, h, s, n)
        if (bias := self.position.bias(q_positions, last)) is not None:
            scores = scores + bias
        hidden = ~visible[:, None]
        # A query that sees no complete block yet gets zeros; -inf throughout would make the softmax NaN.
        weights = scores.masked_fill(hidden, torch.finfo(scores.dtype).min).softmax(-1).masked_fill(hidden, 0)
        grouped = rearrange(weights, "b (g h) s n -> b g h s n", g=self.n_kv_heads)
        y = rearrange(grouped.to(v.dtype) @ v.unsqueeze(2), "b g h s d -> b (g h) s d")

        before = position // self.block - blocks.number[:, None]  # (1 or b, s, n) blocks between; 0 = the query's own
        candidate, forced = (t[:, None] for t in (visible & (before > 0), (before == 1) | (blocks.number[:, None] == 0)))
        rank = grouped.detach().sum(2).masked_fill(forced, float("inf")).masked_fill(~candidate, -1)
        best = rank.sort(dim=-1, descending=True, stable=True).indices[..., : self.top_n - 1]  # the earlier one where equal
        return y, torch.zeros_like(rank, dtype=torch.bool).scatter(-1, best, True) & candidate

    def _attend_selected(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        k_positions: Tensor,
        q_positions: Tensor,
        document: Tensor,
        chosen: Tensor,
        blocks: Blocks,
    ) -> Tensor:
        """Over the tokens of the chosen blocks (b, g, s, n) and of the query's own so far -> (b, h, s, d)."""
        of_token = blocks.of_token[:, None, None].expand(*chosen.shape[:3], -1)
        own = (document[:, -q.shape[2] :, None] == document[:, None]) & (k_positions[:, None] <= q_positions[..., None])
        own = own & (k_positions[:, None] // self.block == q_positions[..., None] // self.block)  # (1 or b, s, keys)
        allowed = F.pad(chosen, (0, 1)).gather(-1, of_token) | own[:, None]  # (b, g, s, keys)
        allowed = repeat(allowed, "b g s k -> b (g h) s k", h=self.n_heads // self.n_kv_heads)
        bias = self.position.bias(q_positions, k_positions)
        mask = allowed if bias is None else bias.to(q.dtype).masked_fill(~allowed, float("-inf"))
        return self.score.attend(q, k, v, mask=mask)

    def _attend_window(
        self, q: Tensor, k: Tensor, v: Tensor, k_positions: Tensor, q_positions: Tensor, *, whole: bool
    ) -> Tensor:
        plan = cached_plan(self._plans, self.pattern, q.shape[2], q.device) if whole else None
        if plan is None:
            mask = full_mask(self.pattern, q_positions, k_positions, packed=True)
            return self.score.attend(q, k, v, mask=mask.with_bias(self.position, q.dtype))
        masks = [mask.with_bias(self.position, q.dtype) for mask in block_masks(self.pattern, q_positions, plan.parts)]
        return attend_blocks(q, k, v, parts=plan.parts, masks=masks, score=self.score)

    def init_cache(self, batch: int, max_seq: int) -> Cache:
        def rows(n: int) -> Tensor:
            return self.k_proj.weight.new_zeros(batch, self.n_kv_heads, n, self.d_head)

        capacities = (min(self.block, max_seq), max_seq, min(self.pattern.window, max_seq))
        incomplete, selected, window = (KVCache(k=rows(n), v=rows(n), max_seq=max_seq) for n in capacities)
        n_blocks = max_seq // self.block + 1
        return NativeSparseCache(incomplete=incomplete, selected=selected, window=window, k=rows(n_blocks), v=rows(n_blocks))

    def cost(self, seq: int) -> Cost:
        projections = (self.q_proj, self.k_proj, self.v_proj, self.gate_proj, self.o_proj)
        compressing = 2 * self.n_kv_heads * sum(p.weight.numel() for p in (self.k_compress.in_proj, self.k_compress.out_proj))
        multiply_adds = seq // self.block * compressing + 2 * self.n_heads * self.d_head * self._pairs(seq)
        cached = seq + min(self.pattern.window, seq) + min(self.block, seq) + seq // self.block + 1
        return parameters_only(self) + Cost(
            flops=2 * (sum(p.weight.numel() for p in projections) + multiply_adds / seq),
            state_bytes=2 * self.n_kv_heads * self.d_head * cached * self.k_proj.weight.element_size(),
        )

    def _pairs(self, seq: int) -> int:
        """How many (query, key) pairs the three branches meet in one document of this length."""
        full, rest = divmod(seq, self.block)
        pairs = self.pattern.pairs(seq)
        for i, n in enumerate([self.block] * full + [rest]):  # n queries of block i
            pairs += n * i + (n == self.block)  # summaries; the last token of a block sees it complete
            pairs += n * self.block * min(i, self.top_n - 1) + n * (n + 1) // 2  # selected blocks, and the own one so far
        return pairs


class Compress(nn.Module):
    """One key or value for a block of them: a small MLP over all its tokens, each with an embedding of its position in it.

    Args:   d_head: channels of a key. block: tokens.
    Shape:  (..., block, d_head) -> (..., d_head)
    """

    undecayed = ("position_embedding",)  # a table, not a matrix
    fixed_inputs = ("in_proj.weight", "out_proj.weight")  # the channels of a head

    def __init__(self, *, d_head: int, block: int) -> None:
        super().__init__()
        self.position_embedding = nn.Parameter(torch.empty(block, d_head))
        self.in_proj = Linear(block * d_head, d_head, bias=False)
        self.out_proj = Linear(d_head, d_head, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.normal_(self.position_embedding, std=self.position_embedding.shape[1] ** -0.5)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.position_embedding.to(x.dtype)
        return self.out_proj(F.silu(self.in_proj(rearrange(x, "... l d -> ... (l d)"))))


class NativeSparseCache(Cache):
    """Keys and values of all tokens to select from, of the window, of the incomplete block, and of complete blocks.

    Args:   incomplete, selected, window: of tokens. k, v: empty buffers for blocks, (batch, kv heads, blocks + 1, d_head).
    """

    def __init__(self, *, incomplete: KVCache, selected: KVCache, window: KVCache, k: Tensor, v: Tensor) -> None:
        self.incomplete = incomplete
        self.selected = selected
        self.window = window
        self.k = k
        self.v = v
        self.n_blocks = torch.zeros(k.shape[0], 1, dtype=torch.long, device=k.device)  # of each row

    def put(self, k: Tensor, v: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """Writes n more blocks (b, g, n, d) behind each row's last, those that are present (1 or b, n); returns all."""
        spare = self.k.shape[2] - 1  # the last row takes those that are not
        row = torch.where(present, self.n_blocks + torch.arange(k.shape[2], device=k.device), spare)
        for buffer, new in ((self.k, k), (self.v, v)):
            buffer.scatter_(2, row[:, None, :, None].expand_as(new), new.to(buffer.dtype))
        self.n_blocks = self.n_blocks + present.sum(1, keepdim=True)
        return self.k, self.v


def last_positions(blocks: Blocks, size: int) -> Tensor:
    """The position of each block's last token, from which on it is seen; (1 or b, n)."""
    return (blocks.number + 1) * size - 1
