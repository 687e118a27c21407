"""Sandwich wiring."""

from __future__ import annotations

from torch import Tensor

from ..contracts import Cache, ChannelMixer, Memory, Norm, SequenceMixer
from .two_norms import TwoNorms


class Sandwich(TwoNorms):
    """Normalises both what each sublayer reads and what it adds to the residual stream.

    x = x + mixer_out_norm(mixer(mixer_norm(x)))
    y = x + ffn_out_norm(ffn(ffn_norm(x)))

    Paper: Kim 2025, arXiv:2502.02732 (Peri-LN, section 3); also Gemma 2, arXiv:2408.00118. Differs: no norm on embeddings.
    Cost per token: that of its parts.
    Args:   mixer: over the sequence. ffn: over the channels; None = mixer only. mixer_norm, ffn_norm: before each.
            mixer_out_norm, ffn_out_norm: on their outputs. dropout: share of a sublayer's outputs that is zeroed in training.
            residual_scale: factor on what it adds.
    Shape:  x: (batch, seq, d_model) -> (batch, seq, d_model)
    Raises: ValueError: an ffn without its norms.
    """

    outputs_add_up = False  # each out_norm undoes whatever scale an output has
    ffn_out_norm: Norm  # None where there is no ffn

    def __init__(
        self,
        *,
        mixer: SequenceMixer,
        ffn: ChannelMixer | None = None,
        mixer_norm: Norm,
        mixer_out_norm: Norm,
        ffn_norm: Norm | None = None,
        ffn_out_norm: Norm | None = None,
        dropout: float = 0.0,
        residual_scale: float = 1.0,
    ) -> None:
        super().__init__(
            mixer=mixer, ffn=ffn, mixer_norm=mixer_norm, ffn_norm=ffn_norm, dropout=dropout, residual_scale=residual_scale
        )
        if ffn is not None and ffn_out_norm is None:
            raise ValueError("Sandwich with an ffn needs 4 norms, got 3: pass ffn_out_norm")
        self.mixer_out_norm = mixer_out_norm
        self.register_module("ffn_out_norm", None if ffn is None else ffn_out_norm)

    def forward(
        self, x: Tensor, *, positions: Tensor | None = None, cache: Cache | None = None, memory: Memory | None = None
    ) -> Tensor:
        x = self.add(x, self.mixer_out_norm(self.mix(self.mixer_norm(x), positions, cache, memory)))
        return x if self.ffn is None else self.add(x, self.ffn_out_norm(self.ffn(self.ffn_norm(x), positions=positions)))
