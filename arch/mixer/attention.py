"""Attention: multi-head, multi-query and grouped-query in one class."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor

from ..contracts import Cache, Cost, Pattern, Position, parameters_only
from ..ops.blocked import BlockPlan, attend_blocks, block_masks, cached_plan, full_mask
from ..pattern import Full
from ..score import DotProduct, Score
from .cache import KVCache
from .heads import Bias, Heads


class Attention(Heads):
    """Every token takes a weighted mean of the values of the tokens that it sees, once per head.

    y_i = W_o concat_h sum_j softmax_j(score(q_ih, k_jg)) v_jg,  g = the kv head that query head h shares

    Paper: Vaswani 2017, arXiv:1706.03762 (MHA); Shazeer 2019, arXiv:1911.02150 (MQA: n_kv_heads = 1); Ainslie 2023,
    arXiv:2305.13245 (GQA). Differs: nothing; pattern, position and score are parts of their own.
    Cost per token: 2 * d_model * d_head * (n_heads + n_kv_heads) parameters (and biases) and as many multiply-adds, plus
    2 * n_heads * d_head multiply-adds per pair seen; 2 * n_kv_heads * d_head numbers of state for each cached token.
    Args:   d_model: channels of each token. n_heads: query heads. n_kv_heads: key and value heads, each shared by
            n_heads / n_kv_heads query heads; None = n_heads. d_head: channels of one head; None = d_model / n_heads.
            bias: on all four projections (true), on none (false), or on all but the output's (qkv).
            pattern: which keys a query sees; None = all earlier ones.
            position: its rotation and its bias are used; None = none is applied here. score: None = scaled dot product.
    Shape:  x: (batch, seq, d_model) -> (batch, seq, d_model)
    Raises: ValueError: n_heads does not divide d_model; n_kv_heads does not divide n_heads; an unknown bias; a position or
            a score for another number of heads.
    """

    def __init__(
        self,
        *,
        d_model: int,
        n_heads: int,
        n_kv_heads: int | None = None,
        d_head: int | None = None,
        bias: Bias = False,
        pattern: Pattern | None = None,
        position: Position | None = None,
        score: Score | None = None,
    ) -> None:
        super().__init__(d_model=d_model, n_heads=n_heads, n_kv_heads=n_kv_heads, d_head=d_head, bias=bias)
        self.pattern = Full() if pattern is None else pattern
        self.position = Position() if position is None else position
        self.score = DotProduct() if score is None else score
        for part in (self.position, self.score):
            if part.n_heads not in (None, n_heads):
                raise ValueError(
                    f"{type(part).__name__} has n_heads={part.n_heads}, and the attention n_heads={n_heads}: say one"
                )
        self.causal = self.pattern.causal
        # A pattern that has a reach goes by the distance alone and never looks further back than this many tokens.
        self.reach: int | None = self.pattern.reach
        self.biased = type(self.position).bias is not Position.bias
        # Whether what several sets of keys give can be joined: that takes a plain score, and a mask that does not learn.
        self.joins = self.score.factor(self.d_head) is not None and not (self.biased and [*self.position.parameters()])
        self._plans: dict[tuple[int, torch.device], BlockPlan | None] = {}

    def forward(self, x: Tensor, *, positions: Tensor | None = None, cache: Cache | None = None) -> Tensor:
        assert cache is None or isinstance(cache, KVCache)
        projections = (self.q_proj, self.k_proj, self.v_proj)
        q, k, v = (rearrange(proj(x), "b s (h d) -> b s h d", d=self.d_head) for proj in projections)
        q, k = self.score.normalise(q, k)
        q, k, v = (rearrange(t, "b s h d -> b h s d") for t in (q, k, v))

        start = 0 if cache is None else cache.length
        q_positions = torch.arange(start, start + x.shape[1], device=x.device)[None] if positions is None else positions
        q, k = self.position.rotate(q, k, q_positions, q_positions)

        packed, k_positions, plan = positions is not None, q_positions, None
        if cache is not None:
            k, v, k_positions = cache.append(k, v, positions)
            packed = cache.positions is not None
        elif not packed or self.reach is not None:  # other patterns count their blocks from position 0 of one document
            plan = cached_plan(self._plans, self.pattern, x.shape[1], x.device, joins=self.joins)

        if plan is not None:
            found = block_masks(self.pattern, q_positions, plan.parts) if packed else plan.masks
            masks = [mask.with_bias(self.position, q.dtype) for mask in found]
            y = attend_blocks(q, k, v, parts=plan.parts, masks=masks, score=self.score)
        elif not packed and self._needs_no_mask(x.shape[1], k_positions.shape[1]):
            y = self.score.attend(q, k, v, causal=self.causal if x.shape[1] > 1 else False)  # one query sees all there is
        else:
            mask = full_mask(self.pattern, q_positions, k_positions, packed=packed)
            y = self.score.attend(q, k, v, mask=mask.with_bias(self.position, q.dtype))
        return self.o_proj(rearrange(y, "b h s d -> b s (h d)"))

    def _needs_no_mask(self, n_queries: int, n_keys: int) -> bool:
        sees_all = isinstance(self.pattern, Full) or (self.reach is not None and self.reach >= n_keys)
        return sees_all and not self.biased and n_queries in (1, n_keys)

    def init_cache(self, batch: int, max_seq: int) -> Cache:
        if not self.causal:
            return super().init_cache(batch, max_seq)
        k = self.k_proj.weight.new_zeros(batch, self.n_kv_heads, self._cached(max_seq), self.d_head)
        return KVCache(k=k, v=torch.zeros_like(k), max_seq=max_seq)

    def _cached(self, seq: int) -> int:
        """Tokens that a cache for a text of this length has room for."""
        return seq if self.reach is None else min(seq, self.reach)

    def cost(self, seq: int) -> Cost:
        flops = self.projection_flops() + 4 * self.n_heads * self.d_head * self.pattern.pairs(seq) / seq
        state = self.state_bytes(self._cached(seq)) if self.causal else 0
        return parameters_only(self) + Cost(flops=flops, state_bytes=state)
