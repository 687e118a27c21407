"""The encoder: a vector for every token of a text, in the context of all others."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from ..contracts import Block, Cost, Norm, parameters_only
from ..limits import at_least_one
from ..ops.linear import Linear
from .embedding import Embedding
from .stack import Stack


class Pooler(nn.Module):
    """One vector for a text, from its first token: tanh(W x_0 + b).

    Paper: Devlin 2018, arXiv:1810.04805 (section 3, "C"; the projection is that of its code). Differs: nothing.
    Cost per text: d_model^2 + d_model parameters, d_model^2 multiply-adds.
    Args:   d_model: channels of each token.
    Shape:  x: (batch, seq, d_model) -> (batch, d_model)
    """

    def __init__(self, *, d_model: int) -> None:
        at_least_one(d_model=d_model)
        super().__init__()
        self.proj = Linear(d_model, d_model)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x[:, 0]).tanh()


class Encoder(Stack):
    """A stack of layers over an embedding: contextual vectors of the tokens.

    x_0 = embedding(tokens, types); x_l = layer_l(x_{l-1}); y = norm(x_L)

    Paper: Devlin 2018, arXiv:1810.04805 (BERT). Differs: the layers are whatever is passed in; objectives bring their heads.
    Cost per token: that of its parts.
    Args:   embedding: tokens to vectors. layers: blocks, first to last; tokens see both sides where mixers are not causal.
            final_norm: None where the layers end in a norm. pooler: one vector for the text; None = no such vector.
    Shape:  tokens, types: (batch, seq) integers -> (batch, seq, d_model)
    Raises: ValueError: no layer, or one that is no block; a pooled vector asked of an encoder without a pooler.
    """

    def __init__(
        self,
        *,
        embedding: Embedding,
        layers: Sequence[Block],
        final_norm: Norm | None = None,
        pooler: Pooler | None = None,
    ) -> None:
        super().__init__(embedding=embedding, layers=layers, final_norm=final_norm)
        self.pooler = pooler

    def forward(self, tokens: Tensor, *, positions: Tensor | None = None, types: Tensor | None = None) -> Tensor:
        return self.hidden(tokens, positions=positions, types=types)

    def pooled(self, x: Tensor) -> Tensor:
        """(batch, seq, d_model), the encoder's own output -> (batch, d_model)"""
        if self.pooler is None:
            raise ValueError("this encoder has no pooler: build it with one, or take the first token's output")
        pooled: Tensor = self.pooler(x)
        return pooled

    def cost(self, seq: int) -> Cost:
        if self.pooler is None:
            return super().cost(seq)
        once = Cost(flops=2 * self.pooler.proj.weight.numel() / seq)
        return super().cost(seq) + parameters_only(self.pooler) + once
