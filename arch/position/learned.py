"""A learned table of positions."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..contracts import Position
from ..limits import at_least_one
from ..ops.seeds import stacked


class Learned(Position):
    """Adds a learned vector per position to the embeddings.

    y_i = x_i + P[i]

    Paper: Gehring 2017, arXiv:1705.03122 (section 3.1); Radford 2018 (GPT). Differs: padding gets the vector of position 0.
    Cost per token: max_seq * d_model parameters in all, no matrix products, no state.
    Args:   d_model: channels of each token. max_seq: rows of the table, the longest text in tokens.
    Shape:  x: (batch, seq, d_model), positions: (batch or 1, seq) -> (batch, seq, d_model)
    Raises: ValueError: a text longer than the table, or positions past its end. Checking positions on a GPU would make the
            host wait for it: there the device's own assertion fails, and compiled code checks the length alone.
    """

    def __init__(self, *, d_model: int, max_seq: int) -> None:
        super().__init__()
        at_least_one(d_model=d_model, max_seq=max_seq)
        self.table = nn.Embedding(max_seq, d_model)
        self.longest = max_seq

    def embed(self, x: Tensor, positions: Tensor) -> Tensor:
        rows = self.table.num_embeddings
        if x.shape[1] > rows:
            raise ValueError(f"a text of {x.shape[1]} tokens is longer than the position table: max_seq is {rows}")
        visible = not (torch.compiler.is_compiling() or stacked())  # whether a number can be read off the tensor
        if positions.device.type == "cpu" and visible and positions.numel():
            last = int(positions.max())
            if last >= rows:
                raise ValueError(f"position {last} is past the end of the position table: max_seq is {rows}, not {last + 1}")
        return x + self.table(positions.clamp(min=0))
