"""Parallel wiring."""

from __future__ import annotations

from torch import Tensor

from .. import limits
from ..contracts import Cache, ChannelMixer, Memory, Norm, SequenceMixer
from .residual import Residual


class Parallel(Residual):
    """Runs mixer and ffn side by side on one normalised input and adds both to the residual stream.

    n = norm(x)
    y = x + mixer(n) + ffn(n)

    Paper: Wang 2021 (GPT-J); Chowdhery 2022, arXiv:2204.02311 (PaLM, section 2). Differs: nothing.
    Cost per token: that of its parts.
    Args:   mixer: over the sequence. ffn: over the channels; None = mixer only. norm: before both.
            dropout: share of each sublayer's outputs that is zeroed in training. residual_scale: factor on what it adds.
    Shape:  x: (batch, seq, d_model) -> (batch, seq, d_model)
    """

    outputs_add_up = True

    def __init__(
        self,
        *,
        mixer: SequenceMixer,
        ffn: ChannelMixer | None = None,
        norm: Norm,
        dropout: float = 0.0,
        residual_scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.mixer = mixer
        self.ffn = ffn
        self.norm = norm
        self.dropout = limits.dropout(dropout)
        limits.above_zero(residual_scale=residual_scale)
        self.residual_scale = residual_scale

    def forward(
        self, x: Tensor, *, positions: Tensor | None = None, cache: Cache | None = None, memory: Memory | None = None
    ) -> Tensor:
        n = self.norm(x)
        x = self.add(x, self.mix(n, positions, cache, memory))
        return x if self.ffn is None else self.add(x, self.ffn(n, positions=positions))
