"""A bank of experts: many small ffns of one shape, stacked."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..contracts import Cost
from ..limits import at_least_one
from ..ops.activation import activation_by_name
from ..ops.bank import as_autocast, expert_bank


class Experts(nn.Module):
    """Sums for each token what its experts make of it; the assignments come sorted by expert.

    y_t = sum over the assignments a of token t:  gate_a * expert_a(x_t)

    expert_e(x) = W_down[e] activation(W_up[e] x)                    ungated, an MLP each
    expert_e(x) = W_down[e] (activation(W_gate[e] x) * W_up[e] x)    gated, a GLU each

    Paper: Shazeer 2017, arXiv:1701.06538 (section 2). Differs: no biases; gated as an option (Jiang 2024, arXiv:2401.04088).
    Cost per assignment: 2 * d_model * d_ff multiply-adds (3 where gated); n_experts times as many parameters.
    Args:   d_model: channels of each token. d_ff: hidden channels of one expert. n_experts: ffns in the bank.
            activation: gelu, gelu_tanh, relu, relu2 or silu. gated: a GLU each instead of an MLP.
    Shape:  x: (t, d_model), token and gate: (a,), counts: (n_experts,) assignments of each expert -> (t, d_model); an
            assignment past the last counted one adds nothing
    Raises: ValueError: unknown activation; a size below 1.
    """

    gate_proj: nn.Parameter | None

    def __init__(self, *, d_model: int, d_ff: int, n_experts: int, activation: str = "gelu", gated: bool = False) -> None:
        super().__init__()
        at_least_one(d_model=d_model, d_ff=d_ff, n_experts=n_experts)
        self.n_experts, self.d_model, self.d_ff = n_experts, d_model, d_ff
        activation_by_name(activation)  # or an error that lists them
        self.activation = activation
        self.register_parameter("gate_proj", nn.Parameter(torch.empty(n_experts, d_ff, d_model)) if gated else None)
        self.up_proj = nn.Parameter(torch.empty(n_experts, d_ff, d_model))
        self.down_proj = nn.Parameter(torch.empty(n_experts, d_model, d_ff))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Each expert starts as a dense ffn of its own width would: N(0, 1/d_in)."""
        for weight in self.parameters():
            nn.init.normal_(weight, std=weight.shape[-1] ** -0.5)

    def forward(self, x: Tensor, token: Tensor, gate: Tensor, counts: Tensor) -> Tensor:
        inward: list[Tensor] = [self.up_proj] if self.gate_proj is None else [self.gate_proj, self.up_proj]
        y = expert_bank(x, token, gate, counts, inward, self.down_proj, self.activation)
        return y.to(as_autocast(x)[0].dtype)

    def cost(self, seq: int) -> Cost:
        """Of one assignment: a token that meets one expert."""
        expert = (2 if self.gate_proj is None else 3) * self.d_model * self.d_ff
        return Cost(params=self.n_experts * expert, active_params=expert, flops=2 * expert)

    def extra_repr(self) -> str:
        kind = "GLU" if self.gate_proj is not None else "MLP"
        return f"{self.n_experts} x {kind}(d_model={self.d_model}, d_ff={self.d_ff})"
