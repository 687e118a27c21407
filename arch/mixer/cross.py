"""Attention from one text to another."""

from __future__ import annotations

from torch import Tensor

from ..contracts import Cache, Cost, longest_document, parameters_only
from ..score import DotProduct
from .heads import Bias, Heads


class Memory(Cache):
    """What an encoder made of the source: x (batch, n, d_model), and the places of its tokens, (batch, n) or None.

    A row holds one text; padding around it has place 0 (on its right, where the text is a single token).
    """

    def __init__(self, *, x: Tensor, positions: Tensor | None = None) -> None:
        self.x = x
        self.positions = positions

    def seen(self) -> Tensor | None:
        """The tokens of the row's text: (batch, 1, 1, n) boolean, None where there is no padding."""
        if self.positions is None:
            return None
        return longest_document(self.positions)[:, None, None]


class ReadMemory(Cache):
    """A memory as the keys and values of one layer, (batch, kv heads, n, d_head), and what of it is seen."""

    def __init__(self, *, k: Tensor, v: Tensor, seen: Tensor | None) -> None:
        self.k = k
        self.v = v
        self.seen = seen


class CrossAttention(Heads):
    """Every token takes a weighted mean of the values of another text, once per head.

    y_i = W_o concat_h sum_j softmax_j(W_q x_i . W_k m_j / sqrt(d_head)) W_v m_j,  m = the memory

    Paper: Vaswani 2017, arXiv:1706.03762 (section 3.2.3); with one head and a recurrence around it Luong 2015,
    arXiv:1508.04025. Differs: nothing; the memory is what this mixer is given as its cache.
    Cost per token: 2 * d_model * d_head * (n_heads + n_kv_heads) parameters (and biases) and as many multiply-adds, plus
    2 * n_heads * d_head multiply-adds per token of the memory; 2 * n_kv_heads * d_head numbers of state for each of these.
    Args:   as of Heads; d_model: channels of each token, of both texts.
    Shape:  x: (batch, seq, d_model) -> (batch, seq, d_model)
    Raises: ValueError: no memory; and as Heads.
    """

    reads_memory = True

    def __init__(
        self, *, d_model: int, n_heads: int, n_kv_heads: int | None = None, d_head: int | None = None, bias: Bias = False
    ) -> None:
        super().__init__(d_model=d_model, n_heads=n_heads, n_kv_heads=n_kv_heads, d_head=d_head, bias=bias)
        self.score = DotProduct()

    def forward(self, x: Tensor, *, positions: Tensor | None = None, cache: Cache | None = None) -> Tensor:
        memory = cache if isinstance(cache, ReadMemory) else self.read(cache)
        q = self.q_proj(x).unflatten(-1, (-1, self.d_head)).transpose(1, 2)  # (b, h, s, d)
        y = self.score.attend(q, memory.k, memory.v, mask=memory.seen)
        return self.o_proj(y.transpose(1, 2).flatten(2))

    def read(self, memory: Cache | None) -> ReadMemory:
        """The memory as this layer sees it: made once, it serves every step of decoding."""
        if not isinstance(memory, Memory):
            raise ValueError("cross-attention has nothing to look at: pass memory= (an EncoderDecoder does)")
        k, v = (proj(memory.x).unflatten(-1, (-1, self.d_head)).transpose(1, 2) for proj in (self.k_proj, self.v_proj))
        return ReadMemory(k=k, v=v, seen=memory.seen())  # k, v: (b, g, n, d)

    def cost(self, seq: int) -> Cost:
        """With a memory of seq tokens."""
        flops = self.projection_flops() + 4 * self.n_heads * self.d_head * seq
        return parameters_only(self) + Cost(flops=flops, state_bytes=self.state_bytes(seq))
