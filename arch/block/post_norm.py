"""Post-norm wiring."""

from __future__ import annotations

from torch import Tensor

from ..contracts import Cache, Memory
from .two_norms import TwoNorms


class PostNorm(TwoNorms):
    """Normalises the residual stream after each sublayer, as the first Transformer did.

    x = mixer_norm(x + mixer(x))
    y = ffn_norm(x + ffn(x))

    Paper: Vaswani 2017, arXiv:1706.03762 (section 3.1). Differs: nothing; such a stack has no final norm.
    Cost per token: that of its parts.
    Args:   mixer: over the sequence. ffn: over the channels; None = mixer only. mixer_norm, ffn_norm: after each sum.
            dropout: share of a sublayer's outputs that is zeroed in training. residual_scale: factor on what it adds.
    Shape:  x: (batch, seq, d_model) -> (batch, seq, d_model)
    Raises: ValueError: an ffn without its norm.
    """

    outputs_add_up = False  # each sum is normalised before the next output comes

    def forward(
        self, x: Tensor, *, positions: Tensor | None = None, cache: Cache | None = None, memory: Memory | None = None
    ) -> Tensor:
        x = self.mixer_norm(self.add(x, self.mix(x, positions, cache, memory)))
        return x if self.ffn is None else self.ffn_norm(self.add(x, self.ffn(x, positions=positions)))
