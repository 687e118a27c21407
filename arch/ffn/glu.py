"""The gated ffn: SwiGLU, GEGLU, ReGLU by their activation."""

from __future__ import annotations

from torch import Tensor

from ..contracts import ChannelMixer, Cost
from ..limits import at_least_one
from ..ops.activation import activation_by_name
from ..ops.linear import Linear


class GLU(ChannelMixer):
    """An up projection multiplied, channel by channel, with an activated gate of its own.

    y = W_down (activation(W_gate x) * W_up x)

    Paper: Shazeer 2020, arXiv:2002.05202 (eqs. 5-6): SwiGLU with silu, GEGLU with gelu, ReGLU with relu. Differs: nothing.
    Cost per token: 3 * d_model * d_ff parameters and as many multiply-adds, no state; biases add 2 * d_ff + d_model parameters.
    Args:   d_model: channels of each token. d_ff: hidden channels; 2/3 of an ungated ffn's costs the same.
            activation: gelu, gelu_tanh, relu, relu2 or silu. bias: whether all three projections add one.
    Shape:  x: (..., d_model) -> (..., d_model)
    Raises: ValueError: unknown activation; a width below 1.
    """

    outputs = ("down_proj.weight",)

    def __init__(self, *, d_model: int, d_ff: int, activation: str = "silu", bias: bool = False) -> None:
        super().__init__()
        at_least_one(d_model=d_model, d_ff=d_ff)
        self.activation = activation_by_name(activation)
        self.gate_proj = Linear(d_model, d_ff, bias=bias)
        self.up_proj = Linear(d_model, d_ff, bias=bias)
        self.down_proj = Linear(d_ff, d_model, bias=bias)

    def forward(self, x: Tensor, *, positions: Tensor | None = None) -> Tensor:
        return self.down_proj(self.activation(self.gate_proj(x)) * self.up_proj(x))

    def cost(self, seq: int) -> Cost:
        d_ff, d_model = self.up_proj.weight.shape
        weights = 3 * d_model * d_ff
        params = weights + (2 * d_ff + d_model if self.up_proj.bias is not None else 0)
        return Cost(params=params, active_params=params, flops=2 * weights)
