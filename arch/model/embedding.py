"""The input of the first layer."""

from __future__ import annotations

from torch import Tensor, nn

from .. import limits
from ..contracts import Cost, Norm, Position, parameters_only


class Embedding(nn.Embedding):
    """A vector per token, with its position and its segment added.

    x = norm(position(scale * E[token]) + T[segment])

    Paper: Vaswani 2017, arXiv:1706.03762 (section 3.4, scale = sqrt(d_model)); Devlin 2018, arXiv:1810.04805 (figure 2:
    segments and norm). Differs: nothing.
    Cost per token: vocab_size * d_model parameters and those of its parts, no matrix products, no state.
    Args:   d_model: channels of each token. vocab_size: rows of the table. position: adds one; None = positions are
            applied inside the layers, or not at all. norm: after the sum; None = none. scale: factor on the table's vectors.
            n_types: segments that have a vector each; 0 = no segments. dropout: share of channels zeroed in training.
    Shape:  tokens, positions, types: (batch, seq) integers -> (batch, seq, d_model)
    Raises: ValueError: segments given to an embedding that has none.
    """

    def __init__(
        self,
        *,
        d_model: int,
        vocab_size: int,
        position: Position | None = None,
        norm: Norm | None = None,
        scale: float = 1.0,
        n_types: int = 0,
        dropout: float = 0.0,
    ) -> None:
        limits.at_least_one(d_model=d_model, vocab_size=vocab_size)
        limits.above_zero(scale=scale)
        if n_types < 0:
            raise ValueError(f"n_types={n_types}: at least 0 is needed; 0 = no segments")
        super().__init__(vocab_size, d_model)
        self.position = position
        self.norm = norm
        self.scale = scale
        self.types = nn.Embedding(n_types, d_model) if n_types else None
        self.dropout = limits.dropout(dropout)

    def forward(self, tokens: Tensor, positions: Tensor | None = None, types: Tensor | None = None) -> Tensor:
        """types: None = segment 0 throughout. positions: needed where a position is added; row 0 may stand for all rows."""
        x = super().forward(tokens)  # (b, s, m)
        if self.scale != 1:
            x = x * self.scale
        if self.position is not None:
            assert positions is not None
            x = self.position.embed(x, positions)
        if self.types is not None:
            x = x + (self.types.weight[0] if types is None else self.types(types))
        elif types is not None:
            raise ValueError("this embedding has no segments (n_types=0): leave types out, or build it with n_types=2")
        return self.dropout(x if self.norm is None else self.norm(x))

    def cost(self, seq: int) -> Cost:
        return parameters_only(self)
