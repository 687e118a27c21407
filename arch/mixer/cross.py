"""Attention from one text to another."""

from __future__ import annotations

from typing import NamedTuple

from einops import rearrange
from torch import Tensor

from ..contracts import Cache, Cost, Memory, parameters_only, real
from ..score import DotProduct
from .heads import Bias, Heads


class KeysValues(NamedTuple):
    """A memory, projected: k, v (batch, kv heads, n, d_head); mask (batch, 1, 1, n): which tokens are real, None = all."""

    k: Tensor
    v: Tensor
    mask: Tensor | None


class MemoryCache(Cache):
    """Keys and values of another text: there after the first call, and the same from then on."""

    def __init__(self) -> None:
        self.projected: KeysValues | None = None


class CrossAttention(Heads):
    """Every token takes a weighted mean of the values of another text, once per head.

    y_i = W_o concat_h sum_j softmax_j(W_q x_i . W_k m_j / sqrt(d_head)) W_v m_j,  m = the memory

    Paper: Vaswani 2017, arXiv:1706.03762 (section 3.2.3); with one head and a recurrence around it Luong 2015,
    arXiv:1508.04025. Differs: nothing.
    Cost per token: 2 * d_model * d_head * (n_heads + n_kv_heads) parameters (and biases) and as many multiply-adds, plus
    2 * n_heads * d_head multiply-adds per token of the memory; 2 * n_kv_heads * d_head numbers of state for each of these.
    Args:   as of Heads; d_model: channels of each token, of both texts.
    Shape:  x: (batch, seq, d_model), memory.x: (batch, n, d_model) -> (batch, seq, d_model)
    Raises: ValueError: no memory, and none cached; and as Heads.
    """

    reads_memory = True

    def __init__(
        self, *, d_model: int, n_heads: int, n_kv_heads: int | None = None, d_head: int | None = None, bias: Bias = False
    ) -> None:
        super().__init__(d_model=d_model, n_heads=n_heads, n_kv_heads=n_kv_heads, d_head=d_head, bias=bias)
        self.score = DotProduct()

    def forward(
        self, x: Tensor, *, memory: Memory | None = None, positions: Tensor | None = None, cache: Cache | None = None
    ) -> Tensor:
        assert cache is None or isinstance(cache, MemoryCache)
        k, v, mask = self.project(memory) if cache is None or cache.projected is None else cache.projected
        if cache is not None:
            cache.projected = KeysValues(k, v, mask)
        q = rearrange(self.q_proj(x), "b s (h d) -> b h s d", d=self.d_head)
        y = self.score.attend(q, k, v, mask=mask)
        return self.o_proj(rearrange(y, "b h s d -> b s (h d)"))

    def project(self, memory: Memory | None) -> KeysValues:
        """The memory as keys and values, padding hidden."""
        if memory is None:
            raise ValueError("cross-attention has nothing to look at: pass memory= (an EncoderDecoder does)")
        k, v = (rearrange(proj(memory.x), "b n (g d) -> b g n d", d=self.d_head) for proj in (self.k_proj, self.v_proj))
        return KeysValues(k, v, None if memory.positions is None else real(memory.positions)[:, None, None])

    def init_cache(self, batch: int, max_seq: int) -> Cache:
        return MemoryCache()

    def cost(self, seq: int) -> Cost:
        """With a memory of seq tokens."""
        flops = self.projection_flops() + 4 * self.n_heads * self.d_head * seq
        return parameters_only(self) + Cost(flops=flops, state_bytes=self.state_bytes(seq))
