"""No wiring at all."""

from __future__ import annotations

from torch import Tensor

from .. import limits
from ..contracts import Block, Cache, ChannelMixer, Memory, SequenceMixer


class Plain(Block):
    """Mixer, then ffn: no norm, and nothing is carried past them.

    y = ffn(mixer(x))

    Paper: Elman 1990 and every stacked RNN since; He 2015, arXiv:1512.03385, for what a residual is good for. Differs: nothing.
    Cost per token: that of its parts.
    Args:   mixer: over the sequence. ffn: over the channels; None = mixer only.
            dropout: share of each sublayer's outputs that is zeroed in training.
    Shape:  x: (batch, seq, d_model) -> (batch, seq, d_model)
    """

    outputs_add_up = False  # nothing is carried past the sublayers

    def __init__(self, *, mixer: SequenceMixer, ffn: ChannelMixer | None = None, dropout: float = 0.0) -> None:
        super().__init__()
        self.mixer = mixer
        self.ffn = ffn
        self.dropout = limits.dropout(dropout)

    def forward(
        self, x: Tensor, *, positions: Tensor | None = None, cache: Cache | None = None, memory: Memory | None = None
    ) -> Tensor:
        x = self.dropout(self.mix(x, positions, cache, memory))
        return x if self.ffn is None else self.dropout(self.ffn(x, positions=positions))
