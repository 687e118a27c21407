"""Gated linear attention: a matrix per head instead of a softmax, whose rows fade as the token decides."""

from __future__ import annotations

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..contracts import Cost, parameters_only
from ..limits import above_zero, at_least_one
from ..norm import RMSNorm
from ..ops.chunked import chunks
from ..ops.linear import Linear
from ..ops.linear_attention import decayed_attention
from .state import StateMixer, forget_at_starts, without_autocast


class GatedLinearAttention(StateMixer):
    """Keys write their values into a matrix that queries read; each channel of the keys forgets at a rate of its own.

    q, k, v = W_q x, W_k x, W_v x;  alpha = sigmoid(W_2 W_1 x + b)^(1 / tau)
    S_t = diag(alpha_t) S_{t-1} + k_t v_t^T;  y = W_o concat_h(norm(S_t^T q_t / sqrt(d_k)) * silu(W_r x_t))

    Paper: Yang 2023, arXiv:2312.06635 (section 4). Differs: an RMS norm per head and no bias in W_r, as the authors' code has
    it; a document starts from zeros.
    Cost per token, k and v for the keys' and values' channels of all heads, d_v for those of one head: d_model * (2 * k +
    3 * v + rank) + rank * k + k + d_v parameters; as many multiply-adds but for the last two, and c * (k + v) + 2 * k * d_v
    in chunks of c tokens; k * d_v numbers of state at any length.
    Args:   d_model: channels of each token. n_heads: heads. d_key: channels of all heads' queries and keys; None = half of
            d_model, rounded down to the heads. d_value: of all heads' values; None = d_model. rank: channels that set the
            decays. tau: the larger, the slower it forgets. chunk: tokens at most that meet in matrix products. eps: of the
            norm, added to the mean square.
    Shape:  x: (batch, seq, d_model) -> (batch, seq, d_model)
    Raises: ValueError: n_heads does not divide d_key or d_value; a size below 1.
    """

    outputs = ("o_proj.weight",)
    fixed_inputs = ("decay_proj.weight",)  # rank channels

    def __init__(
        self,
        *,
        d_model: int,
        n_heads: int,
        d_key: int | None = None,
        d_value: int | None = None,
        rank: int = 16,
        tau: float = 16.0,
        chunk: int = 16,
        eps: float = 1e-5,
    ) -> None:
        at_least_one(d_model=d_model, n_heads=n_heads, rank=rank, chunk=chunk)
        above_zero(tau=tau)
        d_key = max(1, d_model // (2 * n_heads)) * n_heads if d_key is None else d_key
        d_value = d_model if d_value is None else d_value
        at_least_one(d_key=d_key, d_value=d_value)
        if d_key % n_heads or d_value % n_heads:
            raise ValueError(f"n_heads={n_heads} does not divide d_key={d_key} or d_value={d_value}")
        super().__init__(state=(n_heads, d_key // n_heads, d_value // n_heads))
        self.n_heads, self.tau, self.chunk = n_heads, tau, chunk
        self.q_proj = Linear(d_model, d_key, bias=False)
        self.k_proj = Linear(d_model, d_key, bias=False)
        self.v_proj = Linear(d_model, d_value, bias=False)
        self.decay_in_proj = Linear(d_model, rank, bias=False)
        self.decay_proj = Linear(rank, d_key)
        self.gate_proj = Linear(d_model, d_value, bias=False)
        self.norm = RMSNorm(d_model=d_value // n_heads, eps=eps)
        self.o_proj = Linear(d_value, d_model, bias=False)

    def mix(self, x: Tensor, state: Tensor, window: Tensor, positions: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        parts = (self.q_proj(x), self.k_proj(x), self.v_proj(x), self.decay_proj(self.decay_in_proj(x)))
        products = parts[0].dtype if positions is None else None
        with without_autocast(x):
            q, k, v, logits = (rearrange(part.to(state.dtype), "b s (h d) -> b s h d", h=self.n_heads) for part in parts)
            decay = forget_at_starts(F.logsigmoid(logits) / self.tau, positions)
            y, state = decayed_attention(q * q.shape[-1] ** -0.5, k, v, decay, state, chunk=self.chunk, products=products)
        gate = self.gate_proj(x)
        y = rearrange(self.norm(y), "b s h d -> b s (h d)").to(gate.dtype) * F.silu(gate)
        return self.o_proj(y), state, window

    def cost(self, seq: int) -> Cost:
        n, c = chunks(seq, self.chunk)
        key, value = self.q_proj.out_features, self.v_proj.out_features
        weights = sum(layer.weight.numel() for layer in self.children() if isinstance(layer, nn.Linear))
        mixing = c * (key + value) + 2 * key * value // self.n_heads
        flops = 2 * (weights + n * c * mixing / seq)
        return parameters_only(self) + Cost(flops=flops, state_bytes=self.state_bytes())
