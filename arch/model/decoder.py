"""The decoder: a language model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..contracts import Block, Cost, Memory, Norm
from ..limits import above_zero
from ..ops.linear import Linear
from .embedding import Embedding
from .readout import Readout
from .stack import Stack, StackCache


class Decoder(Stack):
    """A stack of layers between an embedding and the logits of the next token.

    x_0 = embedding(tokens); x_l = layer_l(x_{l-1}); logits = scale * W norm(x_L) + b, W = the table where tied

    Paper: Radford 2018 (GPT); scale: Yang 2022, arXiv:2203.03466 (table 8). Differs: the layers are whatever is passed in.
    Cost per token: the embedding's table (twice where untied), vocab_size * d_model multiply-adds for the logits.
    Args:   embedding: tokens to vectors. layers: blocks, first to last. final_norm: before the logits; None where the layers
            end in a norm. tied: logits reuse the embedding's table. logit_bias: whether a learned number per token is added.
            logit_scale: factor on the logits, but for their bias.
    Shape:  tokens: (batch, seq) integers -> (batch, seq, vocab_size)
    Raises: ValueError: no layer, or one that is no block; a scale that is not positive.
    """

    logit_bias: nn.Parameter | None

    def __init__(
        self,
        *,
        embedding: Embedding,
        layers: Sequence[Block],
        final_norm: Norm | None = None,
        tied: bool = True,
        logit_bias: bool = False,
        logit_scale: float = 1.0,
    ) -> None:
        super().__init__(embedding=embedding, layers=layers, final_norm=final_norm)
        above_zero(logit_scale=logit_scale)
        self.logit_scale = logit_scale
        vocab_size, d_model = embedding.weight.shape
        self.lm_head = None if tied else Linear(d_model, vocab_size, bias=False)
        self.register_parameter("logit_bias", nn.Parameter(torch.zeros(vocab_size)) if logit_bias else None)

    def reset_parameters(self) -> None:
        if self.logit_bias is not None:
            nn.init.zeros_(self.logit_bias)

    def forward(
        self,
        tokens: Tensor,
        *,
        positions: Tensor | None = None,
        cache: StackCache | None = None,
        memory: Memory | None = None,
    ) -> Tensor:
        return self.readout(self.hidden(tokens, positions=positions, cache=cache, memory=memory)).logits()

    def readout(self, x: Tensor) -> Readout:
        """(batch, seq, d_model), after the final norm -> the logits (batch, seq, vocab_size), not written out yet"""
        x = x if self.logit_scale == 1 else x * self.logit_scale  # fewer numbers than there are logits
        return Readout(x, self.embedding.weight if self.lm_head is None else self.lm_head.weight, self.logit_bias)

    def cost(self, seq: int) -> Cost:
        table = self.embedding.weight.numel()
        own = (0 if self.lm_head is None else table) + (0 if self.logit_bias is None else self.logit_bias.numel())
        return super().cost(seq) + Cost(params=own, active_params=own, flops=2 * table)
