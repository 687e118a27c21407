"""Mamba: a state space model whose step, input and output depend on the token."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..contracts import Cost, parameters_only
from ..limits import at_least_one
from ..ops.conv import causal_conv
from ..ops.linear import Linear, linear
from ..ops.selective import selective_scan
from .state import StateMixer, draw_step_bias, without_autocast


class Mamba(StateMixer):
    """Each channel carries d_state numbers that decay and take in the token at a pace that the token itself sets.

    u, z = W_in x;  u = silu(conv(u));  r, B, C = W_x u;  dt = softplus(W_dt r + b_dt);  A = -exp(A_log)
    h_t = exp(dt_t A) * h_{t-1} + dt_t u_t B_t^T;  y = W_o ((h_t C_t + D * u_t) * silu(z_t))

    Paper: Gu 2023, arXiv:2312.00752 (algorithm 2, section 3.4). Differs: nothing; a document starts from zeros.
    Cost per token: d_inner * (3 * d_model + 2 * dt_rank + 3 * d_state + d_conv + 3) parameters; as many multiply-adds but for
    the last 3 (biases and D); d_inner * (d_state + d_conv - 1) numbers of state at any length.
    Args:   d_model: channels of each token. d_state: numbers of state per inner channel. d_conv: tokens that the convolution
            sees, its own included. expand: inner channels per channel. dt_rank: channels that set dt; None = d_model / 16,
            rounded up. dt_min, dt_max: between which dt starts, in tokens.
    Shape:  x: (batch, seq, d_model) -> (batch, seq, d_model)
    Raises: ValueError: a size below 1; an empty range of dt.
    """

    undecayed = ("A_log",)  # a rate, not a matrix: optimisers leave it out of weight decay and of orthogonalisation
    outputs = ("o_proj.weight",)

    def __init__(
        self,
        *,
        d_model: int,
        d_state: int = 16,
        d_conv: int = 4,
        expand: int = 2,
        dt_rank: int | None = None,
        dt_min: float = 0.001,
        dt_max: float = 0.1,
    ) -> None:
        at_least_one(d_model=d_model, d_state=d_state, d_conv=d_conv, expand=expand)
        if not 0 < dt_min <= dt_max:
            raise ValueError(f"dt_min={dt_min}, dt_max={dt_max}: 0 < dt_min <= dt_max is needed")
        d_inner = expand * d_model
        super().__init__(state=(d_inner, d_state), window=(d_inner, d_conv - 1))
        dt_rank = math.ceil(d_model / 16) if dt_rank is None else dt_rank
        at_least_one(dt_rank=dt_rank)
        self.dt_range = (dt_min, dt_max)
        self.in_proj = Linear(d_model, 2 * d_inner, bias=False)
        self.conv1d = nn.Conv1d(d_inner, d_inner, d_conv, groups=d_inner)
        self.x_proj = Linear(d_inner, dt_rank + 2 * d_state, bias=False)
        # Not an nn.Linear: how its weight and bias start decides how far the model remembers, and is its own.
        self.dt_proj = nn.Parameter(torch.empty(d_inner, dt_rank))
        self.dt_bias = nn.Parameter(torch.empty(d_inner))
        self.A_log = nn.Parameter(torch.empty(d_inner, d_state))
        self.D = nn.Parameter(torch.empty(d_inner))
        self.o_proj = Linear(d_inner, d_model, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """dt starts log-uniform in its range (its bias is softplus' inverse of that), A at -1 ... -d_state."""
        d_inner, d_state = self.A_log.shape
        with torch.no_grad():
            nn.init.uniform_(self.dt_proj, -(self.dt_proj.shape[1] ** -0.5), self.dt_proj.shape[1] ** -0.5)
            draw_step_bias(self.dt_bias, *self.dt_range)
            self.A_log.copy_(torch.arange(1, d_state + 1, device=self.A_log.device).log().expand(d_inner, d_state))
            nn.init.ones_(self.D)

    def mix(self, x: Tensor, state: Tensor, window: Tensor, positions: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        u, z = self.in_proj(x).chunk(2, dim=-1)  # twice (b, s, d_inner)
        u, window = causal_conv(self.conv1d, u, window, positions)
        y, state = self._scan(F.silu(u), state, positions)
        return self.o_proj(y.to(z.dtype) * F.silu(z)), state, window

    def _scan(self, u: Tensor, state: Tensor, positions: Tensor | None) -> tuple[Tensor, Tensor]:
        """u: (b, s, d_inner) -> y and the last state. At least fp32, under autocast too: errors add up."""
        rank, d_state = self.dt_proj.shape[1], self.A_log.shape[1]
        by_token = self.x_proj(u).to(state.dtype)
        with without_autocast(u):
            u = u.to(state.dtype)
            for_dt, into, out = by_token.split((rank, d_state, d_state), dim=-1)
            dt = F.softplus(linear(for_dt, self.dt_proj.to(state.dtype), self.dt_bias.to(state.dtype)))
            rates = -self.A_log.to(state.dtype).exp()
            y, state = selective_scan(dt, rates, into, out, u, state, starts=None if positions is None else positions == 0)
            return y + self.D.to(state.dtype) * u, state

    def cost(self, seq: int) -> Cost:
        parts = (self.in_proj.weight, self.conv1d.weight, self.x_proj.weight, self.dt_proj, self.o_proj.weight, self.A_log)
        flops = 2 * sum(part.numel() for part in parts)  # A_log has as many numbers as one token reads from the state
        return parameters_only(self) + Cost(flops=flops, state_bytes=self.state_bytes())
