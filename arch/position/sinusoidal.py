"""Sinusoids as places."""

from __future__ import annotations

import torch
from torch import Tensor

from ..contracts import Position
from .constant import Constant


class Sinusoidal(Position):
    """Adds sines and cosines of geometrically spaced wavelengths to the embeddings.

    y[i, 2j] = x[i, 2j] + sin(i / 10000^(2j / d_model)),  y[i, 2j+1] = x[i, 2j+1] + cos(i / 10000^(2j / d_model))

    Paper: Vaswani 2017, arXiv:1706.03762 (section 3.5). Differs: the embeddings are not multiplied by sqrt(d_model).
    Cost per token: no parameters, no matrix products, no state.
    Args:   d_model: channels of each token, even.
    Shape:  x: (batch, seq, d_model), positions: (batch or 1, seq) -> (batch, seq, d_model)
    Raises: ValueError: an odd d_model.
    """

    def __init__(self, *, d_model: int) -> None:
        super().__init__()
        if d_model % 2:
            raise ValueError(f"sinusoids come in pairs: d_model is {d_model}, {d_model + 1} would do")
        self.frequencies = Constant([10000.0 ** (-j / d_model) for j in range(0, d_model, 2)])

    def embed(self, x: Tensor, positions: Tensor) -> Tensor:
        angles = positions[..., None] * self.frequencies.tensor  # (b, s, m / 2)
        return x + torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(-2).to(x.dtype)
