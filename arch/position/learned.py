"""A learned table of places."""

from __future__ import annotations

from torch import Tensor, nn

from ..contracts import Position


class Learned(Position):
    """Adds a learned vector per place to the embeddings.

    y_i = x_i + P[i]

    Paper: Gehring 2017, arXiv:1705.03122 (section 3.1); Radford 2018 (GPT). Differs: nothing.
    Cost per token: max_seq * d_model parameters in all, no matrix products, no state.
    Args:   d_model: channels of each token. max_seq: rows of the table, the longest text in tokens.
    Shape:  x: (batch, seq, d_model), positions: (batch or 1, seq) -> (batch, seq, d_model)
    Raises: ValueError: a text longer than the table.
    """

    def __init__(self, *, d_model: int, max_seq: int) -> None:
        super().__init__()
        self.table = nn.Embedding(max_seq, d_model)
        self.longest = max_seq

    def embed(self, x: Tensor, positions: Tensor) -> Tensor:
        if x.shape[1] > self.table.num_embeddings:
            most = self.table.num_embeddings
            raise ValueError(f"a text of {x.shape[1]} tokens is longer than the position table: max_seq is {most}")
        return x + self.table(positions)
