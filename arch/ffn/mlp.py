"""The Transformer's own ffn: up, bend, down."""

from __future__ import annotations

from torch import Tensor

from ..contracts import ChannelMixer, Cost
from ..limits import at_least_one
from ..ops.activation import activation_by_name
from ..ops.linear import Linear


class MLP(ChannelMixer):
    """Two projections with an activation between them.

    y = W_down activation(W_up x)

    Paper: Vaswani 2017, arXiv:1706.03762 (eq. 2). Differs: GELU and no biases unless asked for.
    Cost per token: 2 * d_model * d_ff parameters and as many multiply-adds, no state; biases add d_ff + d_model parameters.
    Args:   d_model: channels of each token. d_ff: hidden channels. activation: gelu, gelu_tanh, relu, relu2 or silu.
            bias: whether both projections add one.
    Shape:  x: (..., d_model) -> (..., d_model)
    Raises: ValueError: unknown activation; a width below 1.
    """

    outputs = ("down_proj.weight",)

    def __init__(self, *, d_model: int, d_ff: int, activation: str = "gelu", bias: bool = False) -> None:
        super().__init__()
        at_least_one(d_model=d_model, d_ff=d_ff)
        self.activation = activation_by_name(activation)
        self.up_proj = Linear(d_model, d_ff, bias=bias)
        self.down_proj = Linear(d_ff, d_model, bias=bias)

    def forward(self, x: Tensor, *, positions: Tensor | None = None) -> Tensor:
        return self.down_proj(self.activation(self.up_proj(x)))

    def cost(self, seq: int) -> Cost:
        d_ff, d_model = self.up_proj.weight.shape
        weights = 2 * d_model * d_ff
        params = weights + (d_ff + d_model if self.up_proj.bias is not None else 0)
        return Cost(params=params, active_params=params, flops=2 * weights)
