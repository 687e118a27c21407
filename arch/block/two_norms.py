"""What layers share that run the mixer first, then the ffn, with a norm for each; the kinds say where the norms stand."""

from __future__ import annotations

from .. import limits
from ..contracts import ChannelMixer, Norm, SequenceMixer
from .residual import Residual


class TwoNorms(Residual):
    """Holds a mixer, an ffn, a norm for each, and the dropout and the factor on what they add to the residual stream."""

    ffn: ChannelMixer | None
    ffn_norm: Norm  # None where there is no ffn: an unused norm would be a dead weight

    def __init__(
        self,
        *,
        mixer: SequenceMixer,
        ffn: ChannelMixer | None = None,
        mixer_norm: Norm,
        ffn_norm: Norm | None = None,
        dropout: float = 0.0,
        residual_scale: float = 1.0,
    ) -> None:
        super().__init__()
        if ffn is not None and ffn_norm is None:
            raise ValueError(f"{type(self).__name__} with an ffn needs 2 norms, got 1: pass ffn_norm")
        self.mixer = mixer
        self.mixer_norm = mixer_norm
        self.ffn = ffn
        self.register_module("ffn_norm", None if ffn is None else ffn_norm)
        self.dropout = limits.dropout(dropout)
        limits.above_zero(residual_scale=residual_scale)
        self.residual_scale = residual_scale
