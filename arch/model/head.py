"""A head on an encoder's outputs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..contracts import Norm
from ..limits import above_zero
from ..ops.activation import activation_by_name
from ..ops.linear import Linear
from .readout import Readout


class MaskedLMHead(nn.Module):
    """The logits of a masked token, from the encoder's output at its position.

    logits = scale * E norm(activation(W x + b)) + c,  E = the encoder's own embedding table

    Paper: Devlin 2018, arXiv:1810.04805 (section 3.1, task 1; the transform is that of its code). Differs: nothing.
    Cost per token: d_model^2 + d_model parameters, those of the norm and vocab_size more; as many multiply-adds but for the
    biases, and vocab_size * d_model for the logits.
    Args:   d_model: channels of each token. vocab_size: rows of the table. norm: before the logits.
            activation: gelu, gelu_tanh, relu, relu2 or silu. logit_scale: factor on the logits, but for their bias.
    Shape:  x: (..., d_model), table: (vocab_size, d_model) -> (..., vocab_size)
    Raises: ValueError: unknown activation; a scale that is not positive.
    """

    def __init__(
        self, *, d_model: int, vocab_size: int, norm: Norm, activation: str = "gelu", logit_scale: float = 1.0
    ) -> None:
        super().__init__()
        above_zero(logit_scale=logit_scale)
        self.logit_scale = logit_scale
        self.proj = Linear(d_model, d_model)
        self.activation = activation_by_name(activation)
        self.norm = norm
        self.bias = nn.Parameter(torch.zeros(vocab_size))

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor, table: Tensor) -> Tensor:
        return self.readout(x, table).logits()

    def readout(self, x: Tensor, table: Tensor) -> Readout:
        """The logits, not written out yet."""
        x = self.norm(self.activation(self.proj(x)))
        return Readout(x if self.logit_scale == 1 else x * self.logit_scale, table, self.bias)
