"""Gated DeltaNet: a matrix per head that fades, and whose value under a key is replaced rather than added to."""

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
from ..ops.linear_attention import delta_rule
from .state import StateMixer, draw_step_bias, forget_at_starts, without_autocast


class GatedDeltaNet(StateMixer):
    """Each token takes out what the state holds under its key, puts its value there, and fades the whole.

    q, k, v = silu(conv(W_q x, W_k x, W_v x));  q, k of length 1 in each head
    beta = sigmoid(W_b x);  alpha = exp(-exp(A_log) * softplus(W_a x + dt_bias))
    S_t = alpha_t * (I - beta_t k_t k_t^T) S_{t-1} + beta_t k_t v_t^T
    y = W_o concat_h(norm(S_t^T q_t / sqrt(d_k)) * silu(W_g x_t))

    Paper: Yang 2024, arXiv:2412.06464 (section 3, figure 1). Differs: q is divided by sqrt(d_k), as the authors' code has it,
    and 1e-6 is added to the squared lengths of q and k; the state is transposed; a document starts from zeros.
    Cost per token, k and v for the keys' and values' channels of all heads, h for n_heads, d_v = v / h: d_model * (2 * k +
    3 * v + 2 * h) + (2 * k + v) * d_conv + d_v + 2 * h parameters; as many multiply-adds but for the last two, and
    c * (2 * k + v) + 3 * k * d_v in chunks of c tokens; k * d_v + (2 * k + v) * (d_conv - 1) numbers of state at any length.
    Args:   d_model: channels of each token. n_heads: heads. d_key: channels of all heads' queries and keys; None = three
            quarters of d_model, rounded to the heads. d_value: of all heads' values; None = 2 * d_key. d_conv: tokens that the
            convolution sees, its own included. chunk: tokens at most that meet in matrix products. eps: of the norm, added to
            the mean square.
    Shape:  x: (batch, seq, d_model) -> (batch, seq, d_model)
    Raises: ValueError: n_heads does not divide d_key or d_value; a size below 1.
    """

    outputs = ("o_proj.weight",)

    def __init__(
        self,
        *,
        d_model: int,
        n_heads: int,
        d_key: int | None = None,
        d_value: int | None = None,
        d_conv: int = 4,
        chunk: int = 64,
        eps: float = 1e-5,
    ) -> None:
        at_least_one(d_model=d_model, n_heads=n_heads, d_conv=d_conv, chunk=chunk)
        d_key = max(1, round(3 * d_model / (4 * n_heads))) * n_heads if d_key is None else d_key
        d_value = 2 * d_key if d_value is None else d_value
        at_least_one(d_key=d_key, d_value=d_value)
        if d_key % n_heads or d_value % n_heads:
            raise ValueError(f"n_heads={n_heads} does not divide d_key={d_key} or d_value={d_value}")
        convolved = 2 * d_key + d_value
        super().__init__(state=(n_heads, d_key // n_heads, d_value // n_heads), window=(convolved, d_conv - 1))
        self.n_heads, self.chunk = n_heads, chunk
        self.q_proj = Linear(d_model, d_key, bias=False)
        self.k_proj = Linear(d_model, d_key, bias=False)
        self.v_proj = Linear(d_model, d_value, bias=False)
        self.conv1d = nn.Conv1d(convolved, convolved, d_conv, groups=convolved, bias=False)
        self.beta_proj = Linear(d_model, n_heads, bias=False)
        self.decay_proj = Linear(d_model, n_heads, bias=False)
        self.A_log = nn.Parameter(torch.empty(n_heads))
        self.dt_bias = nn.Parameter(torch.empty(n_heads))
        self.gate_proj = Linear(d_model, d_value, bias=False)
        self.norm = RMSNorm(d_model=d_value // n_heads, eps=eps)
        self.o_proj = Linear(d_value, d_model, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """The softplus starts log-uniform from 0.001 to 0.1 where x is 0, exp(A_log) uniform up to 16."""
        with torch.no_grad():
            draw_step_bias(self.dt_bias, 0.001, 0.1)
            self.A_log.uniform_(0, 16).clamp_(min=1e-4).log_()

    def mix(self, x: Tensor, state: Tensor, window: Tensor, positions: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        u = torch.cat((self.q_proj(x), self.k_proj(x), self.v_proj(x)), dim=-1)
        u, window = causal_conv(self.conv1d, u, window, positions)
        y, state = self._attend(F.silu(u), self.beta_proj(x), self.decay_proj(x), state, positions)
        gate = self.gate_proj(x)
        y = rearrange(self.norm(y), "b s h d -> b s (h d)").to(gate.dtype) * F.silu(gate)
        return self.o_proj(y), state, window

    def _attend(self, u: Tensor, beta: Tensor, steps: Tensor, state: Tensor, positions: Tensor | None) -> tuple[Tensor, Tensor]:
        """u: (b, s, 2 k + v), beta, steps: (b, s, h) -> y (b, s, h, d_v) and the last state, in the state's dtype."""
        products = u.dtype if positions is None else None
        with without_autocast(u):
            u, beta, steps = (part.to(state.dtype) for part in (u, beta, steps))
            widths = (self.q_proj.out_features, self.k_proj.out_features, self.v_proj.out_features)
            q, k, v = (rearrange(part, "b s (h d) -> b s h d", h=self.n_heads) for part in u.split(widths, dim=-1))
            q, k = (part * (part.square().sum(-1, keepdim=True) + 1e-6).rsqrt() for part in (q, k))
            decay = -self.A_log.to(state.dtype).exp() * F.softplus(steps + self.dt_bias.to(state.dtype))
            decay = forget_at_starts(decay, positions)[..., None]
            q, beta = q * q.shape[-1] ** -0.5, beta.sigmoid()[..., None]
            return delta_rule(q, k, v, decay, beta, state, chunk=self.chunk, products=products)

    def cost(self, seq: int) -> Cost:
        n, c = chunks(seq, self.chunk)
        key, value = self.q_proj.out_features, self.v_proj.out_features
        weights = sum(layer.weight.numel() for layer in self.children() if isinstance(layer, (nn.Linear, nn.Conv1d)))
        mixing = c * (2 * key + value) + 3 * key * value // self.n_heads
        flops = 2 * (weights + n * c * mixing / seq)
        return parameters_only(self) + Cost(flops=flops, state_bytes=self.state_bytes())
