"""Output-norm wiring."""

from __future__ import annotations

from torch import Tensor

from ..contracts import Cache, Memory
from .two_norms import TwoNorms


class OutputNorm(TwoNorms):
    """Normalises what each sublayer adds to the residual stream, not what it reads.

    x = x + mixer_norm(mixer(x))
    y = x + ffn_norm(ffn(x))

    Paper: OLMo 2 2025, arXiv:2501.00656 (section 2.1, "reordered norm"). Differs: nothing; QK-norm is the score's.
    Cost per token: that of its parts.
    Args:   mixer: over the sequence. ffn: over the channels; None = mixer only. mixer_norm, ffn_norm: on their outputs.
            dropout: share of a sublayer's outputs that is zeroed in training. residual_scale: factor on what it adds.
    Shape:  x: (batch, seq, d_model) -> (batch, seq, d_model)
    Raises: ValueError: an ffn without its norm.
    """

    outputs_add_up = False  # each norm undoes whatever scale an output has

    def forward(
        self, x: Tensor, *, positions: Tensor | None = None, cache: Cache | None = None, memory: Memory | None = None
    ) -> Tensor:
        x = self.add(x, self.mixer_norm(self.mix(x, positions, cache, memory)))
        return x if self.ffn is None else self.add(x, self.ffn_norm(self.ffn(x, positions=positions)))
