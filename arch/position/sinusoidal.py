"""Sinusoids as positions."""

from __future__ import annotations

from typing import Literal

from einops import rearrange
from torch import Tensor

from ..contracts import Position
from ..limits import at_least_one
from .constant import Constant


class Sinusoidal(Position):
    """Adds sines and cosines of geometrically spaced wavelengths to the embeddings.

    y[i, 2j] = x[i, 2j] + sin(i / 10000^(2j / d_model)),  y[i, 2j+1] = x[i, 2j+1] + cos(i / 10000^(2j / d_model))

    Paper: Vaswani 2017, arXiv:1706.03762 (section 3.5). Differs: halves puts all sines before all cosines, as Marian does;
    the factor sqrt(d_model) on the embeddings is the embedding's scale.
    Cost per token: no parameters, no matrix products, no state.
    Args:   d_model: channels of each token, even. layout: interleaved (sine, cosine, sine ...) or halves.
    Shape:  x: (batch, seq, d_model), positions: (batch or 1, seq) -> (batch, seq, d_model)
    Raises: ValueError: an odd d_model; an unknown layout.
    """

    def __init__(self, *, d_model: int, layout: Literal["interleaved", "halves"] = "interleaved") -> None:
        super().__init__()
        at_least_one(d_model=d_model)
        if d_model % 2:
            raise ValueError(f"sinusoids come in pairs: d_model is {d_model}, {d_model + 1} would do")
        if layout not in ("interleaved", "halves"):
            raise ValueError(f"layout={layout!r}: choose interleaved or halves (all sines, then all cosines)")
        self.channels = "(pair two)" if layout == "interleaved" else "(two pair)"
        self.frequencies = Constant([10000.0 ** (-j / d_model) for j in range(0, d_model, 2)])

    def embed(self, x: Tensor, positions: Tensor) -> Tensor:
        angles = positions[..., None] * self.frequencies.tensor  # (b, s, m / 2)
        return x + rearrange([angles.sin(), angles.cos()], f"two b s pair -> b s {self.channels}").to(x.dtype)
