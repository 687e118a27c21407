"""Mamba-2: a state space model with one decay per head, so that matrix products compute it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..contracts import Cache, Cost, SequenceMixer, parameters_only
from ..norm import RMSNorm
from ..ops.chunked import chunks, decayed_attention
from ..ops.conv import causal_conv
from .state import StateCache, draw_step_bias, forget_at_starts, without_autocast, zero_state


class Mamba2(SequenceMixer):
    """Each head carries a matrix of d_state x d_head that decays as one and takes in the token at a pace the token sets.

    z, u, dt = W_in x;  x, B, C = silu(conv(u));  dt = softplus(dt + b_dt);  A = -exp(A_log)
    S_t = exp(dt_t A) * S_{t-1} + dt_t B_t x_t^T;  y = W_o norm((S_t^T C_t + D * x_t) * silu(z_t))

    Paper: Dao & Gu 2024, arXiv:2405.21060 (sections 6 and 7). Differs: one norm over all heads with several groups too; a
    document starts from zeros. Names are those of the published weights but for o_proj (there out_proj).
    Cost per token, with i = expand * d_model, h = i / d_head, w = i + 2 * n_groups * d_state: d_model * (2 * i + w + h) +
    w * (d_conv + 1) + i + 3 * h parameters; d_model * (2 * i + w + h) + w * d_conv + 2 * i * d_state multiply-adds and
    c * (n_groups * d_state + i) inside chunks of c tokens; i * d_state + w * (d_conv - 1) numbers of state at any length.
    Args:   d_model: channels of each token. d_state: rows of a head's state. d_conv: tokens that the convolution sees, its own
            included. expand: inner channels per channel. d_head: inner channels per head. n_groups: groups of heads that share
            B and C. chunk: tokens at most that meet in matrix products.
    Shape:  x: (batch, seq, d_model) -> (batch, seq, d_model)
    Raises: ValueError: d_head does not divide the inner channels, or n_groups the heads.
    """

    outputs = ("o_proj.weight",)

    def __init__(
        self,
        *,
        d_model: int,
        d_state: int = 128,
        d_conv: int = 4,
        expand: int = 2,
        d_head: int = 64,
        n_groups: int = 1,
        chunk: int = 64,
    ) -> None:
        super().__init__()
        d_inner = expand * d_model
        if d_inner % d_head:
            raise ValueError(f"d_head={d_head} does not divide the {expand} * {d_model} = {d_inner} inner channels")
        n_heads = d_inner // d_head
        if n_heads % n_groups:
            raise ValueError(f"n_groups={n_groups} does not divide the {d_inner} / {d_head} = {n_heads} heads")
        self.d_state, self.d_head, self.n_groups, self.chunk = d_state, d_head, n_groups, chunk
        convolved = d_inner + 2 * n_groups * d_state
        self.in_proj = nn.Linear(d_model, d_inner + convolved + n_heads, bias=False)
        self.conv1d = nn.Conv1d(convolved, convolved, d_conv, groups=convolved)
        self.A_log = nn.Parameter(torch.empty(n_heads))
        self.D = nn.Parameter(torch.empty(n_heads))
        self.dt_bias = nn.Parameter(torch.empty(n_heads))
        self.norm = RMSNorm(d_model=d_inner, eps=1e-5)
        self.o_proj = nn.Linear(d_inner, d_model, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """dt starts log-uniform from 0.001 to 0.1 tokens, A uniform from -16 to -1."""
        with torch.no_grad():
            draw_step_bias(self.dt_bias, 0.001, 0.1)
            self.A_log.uniform_(1, 16).log_()
            nn.init.ones_(self.D)

    def forward(self, x: Tensor, *, positions: Tensor | None = None, cache: Cache | None = None) -> Tensor:
        assert cache is None or isinstance(cache, StateCache)
        before = self._empty(x.shape[0]) if cache is None else cache
        assert before.window is not None
        widths = (self.o_proj.in_features, self.conv1d.in_channels, self.dt_bias.shape[0])
        z, u, dt = self.in_proj(x).split(widths, dim=-1)
        u, window = causal_conv(self.conv1d, u, before.window, positions)
        y, state = self._scan(F.silu(u), dt, before.state, positions)
        if cache is not None:
            cache.window, cache.state = window.clone(), state.clone()  # views would keep the whole text alive
        return self.o_proj(self.norm(y * F.silu(z.to(y.dtype))).to(z.dtype))

    def _scan(self, u: Tensor, dt: Tensor, state: Tensor, positions: Tensor | None) -> tuple[Tensor, Tensor]:
        """u: (b, s, d_inner + 2 g d_state), dt: (b, s, h) -> y (b, s, d_inner) and the last state, in the state's dtype."""
        with without_autocast(u):
            u, dt = u.to(state.dtype), dt.to(state.dtype)
            shared = self.n_groups * self.d_state
            x, into, out = u.split((self.o_proj.in_features, shared, shared), dim=-1)
            x = x.unflatten(-1, (-1, self.d_head))  # (b, s, h, d_head)
            into, out = (part.unflatten(-1, (self.n_groups, self.d_state)) for part in (into, out))  # (b, s, g, d_state)
            dt = F.softplus(dt + self.dt_bias.to(state.dtype))
            decay = forget_at_starts(dt * -self.A_log.to(state.dtype).exp(), positions)
            y, state = decayed_attention(out, into, x * dt[..., None], decay[..., None], state, chunk=self.chunk)
            y = y + self.D.to(state.dtype)[:, None] * x
        return y.flatten(2), state

    def init_cache(self, batch: int, max_seq: int) -> Cache:
        return self._empty(batch)

    def _empty(self, batch: int) -> StateCache:
        channels, _, taps = self.conv1d.weight.shape
        window = self.conv1d.weight.new_zeros(batch, channels, taps - 1)
        return StateCache(state=zero_state(self.A_log, batch, len(self.A_log), self.d_state, self.d_head), window=window)

    def cost(self, seq: int) -> Cost:
        n, c = chunks(seq, self.chunk)
        weights = sum(layer.weight.numel() for layer in (self.in_proj, self.conv1d, self.o_proj))
        d_inner = self.o_proj.in_features
        mixing = c * (self.n_groups * self.d_state + d_inner) + 2 * d_inner * self.d_state
        flops = 2 * (weights + n * c * mixing / seq)
        return parameters_only(self) + Cost(flops=flops, state_bytes=self._empty(1).nbytes)
