"""Mamba-2: a state space model with one decay per head, so that matrix products compute it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..contracts import Cost, parameters_only
from ..limits import at_least_one
from ..norm import RMSNorm
from ..ops.chunked import chunks
from ..ops.conv import causal_conv
from ..ops.linear import Linear
from ..ops.linear_attention import decayed_attention
from .state import StateMixer, draw_step_bias, forget_at_starts, without_autocast


class Mamba2(StateMixer):
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
            B and C. chunk: tokens at most that meet in matrix products. eps: of the norm, added to the mean square.
    Shape:  x: (batch, seq, d_model) -> (batch, seq, d_model)
    Raises: ValueError: d_head does not divide the inner channels, or n_groups the heads; a size below 1.
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
        eps: float = 1e-5,
    ) -> None:
        at_least_one(d_model=d_model, d_state=d_state, d_conv=d_conv, expand=expand, d_head=d_head)
        at_least_one(n_groups=n_groups, chunk=chunk)
        d_inner = expand * d_model
        if d_inner % d_head:
            raise ValueError(f"d_head={d_head} does not divide the {expand} * {d_model} = {d_inner} inner channels")
        n_heads = d_inner // d_head
        if n_heads % n_groups:
            raise ValueError(f"n_groups={n_groups} does not divide the {d_inner} / {d_head} = {n_heads} heads")
        convolved = d_inner + 2 * n_groups * d_state
        super().__init__(state=(n_heads, d_state, d_head), window=(convolved, d_conv - 1))
        self.d_state, self.d_head, self.n_groups, self.chunk = d_state, d_head, n_groups, chunk
        self.in_proj = Linear(d_model, d_inner + convolved + n_heads, bias=False)
        self.conv1d = nn.Conv1d(convolved, convolved, d_conv, groups=convolved)
        self.A_log = nn.Parameter(torch.empty(n_heads))
        self.D = nn.Parameter(torch.empty(n_heads))
        self.dt_bias = nn.Parameter(torch.empty(n_heads))
        self.norm = RMSNorm(d_model=d_inner, eps=eps)
        self.o_proj = Linear(d_inner, d_model, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """dt starts log-uniform from 0.001 to 0.1 tokens, A uniform from -16 to -1."""
        with torch.no_grad():
            draw_step_bias(self.dt_bias, 0.001, 0.1)
            self.A_log.uniform_(1, 16).log_()
            nn.init.ones_(self.D)

    def mix(self, x: Tensor, state: Tensor, window: Tensor, positions: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        widths = (self.o_proj.in_features, self.conv1d.in_channels, self.dt_bias.shape[0])
        z, u, dt = self.in_proj(x).split(widths, dim=-1)
        u, window = causal_conv(self.conv1d, u, window, positions)
        y, state = self._scan(F.silu(u), dt, state, positions)
        return self.o_proj(self.norm(y * F.silu(z.to(y.dtype))).to(z.dtype)), state, window

    def _scan(self, u: Tensor, dt: Tensor, state: Tensor, positions: Tensor | None) -> tuple[Tensor, Tensor]:
        """u: (b, s, d_inner + 2 g d_state), dt: (b, s, h) -> y (b, s, d_inner) and the last state, in the state's dtype."""
        products = u.dtype if positions is None else None
        with without_autocast(u):
            u, dt = u.to(state.dtype), dt.to(state.dtype)
            shared = self.n_groups * self.d_state
            x, into, out = u.split((self.o_proj.in_features, shared, shared), dim=-1)
            x = rearrange(x, "b s (h d) -> b s h d", d=self.d_head)
            into, out = (rearrange(part, "b s (g n) -> b s g n", g=self.n_groups) for part in (into, out))  # n: d_state
            dt = F.softplus(dt + self.dt_bias.to(state.dtype))
            decay = forget_at_starts(dt * -self.A_log.to(state.dtype).exp(), positions)
            x_dt, decay = x * dt[..., None], decay[..., None]
            y, state = decayed_attention(out, into, x_dt, decay, state, chunk=self.chunk, products=products)
            y = y + self.D.to(state.dtype)[:, None] * x
        return rearrange(y, "b s h d -> b s (h d)"), state

    def cost(self, seq: int) -> Cost:
        n, c = chunks(seq, self.chunk)
        weights = sum(layer.weight.numel() for layer in (self.in_proj, self.conv1d, self.o_proj))
        d_inner = self.o_proj.in_features
        mixing = c * (self.n_groups * self.d_state + d_inner) + 2 * d_inner * self.d_state
        flops = 2 * (weights + n * c * mixing / seq)
        return parameters_only(self) + Cost(flops=flops, state_bytes=self.state_bytes())
