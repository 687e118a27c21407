"""Pre-norm wiring."""

from __future__ import annotations

from torch import Tensor

from ..contracts import Cache, Memory
from .two_norms import TwoNorms


class PreNorm(TwoNorms):
    """Normalises what each sublayer reads; the residual stream itself stays untouched.

    x = x + mixer(mixer_norm(x))
    y = x + ffn(ffn_norm(x))

    Paper: Xiong 2020, arXiv:2002.04745 (figure 1b). Differs: nothing; the final norm is the model's.
    Cost per token: that of its parts.
    Args:   mixer: over the sequence. ffn: over the channels; None = mixer only. mixer_norm, ffn_norm: before each.
            dropout: share of a sublayer's outputs that is zeroed in training. residual_scale: factor on what it adds.
    Shape:  x: (batch, seq, d_model) -> (batch, seq, d_model)
    Raises: ValueError: an ffn without its norm.
    """

    outputs_add_up = True

    def forward(
        self, x: Tensor, *, positions: Tensor | None = None, cache: Cache | None = None, memory: Memory | None = None
    ) -> Tensor:
        x = self.add(x, self.mix(self.mixer_norm(x), positions, cache, memory))
        return x if self.ffn is None else self.add(x, self.ffn(self.ffn_norm(x), positions=positions))
