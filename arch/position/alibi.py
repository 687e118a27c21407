"""Attention with linear biases."""

from __future__ import annotations

from torch import Tensor

from ..contracts import Position
from ..limits import at_least_one
from .constant import Constant


class ALiBi(Position):
    """Lowers each score by the distance between query and key, times a fixed slope per head.

    bias_h(i, j) = -slope_h * |i - j|,  slope_h = 2^(-8h / n_heads) for h = 1 .. n_heads, n_heads a power of two

    Paper: Press 2021, arXiv:2108.12409 (section 3). Differs: |i - j|, so that it also serves attention to both sides.
    Cost per token: no parameters, no matrix products, no state.
    Args:   n_heads: query heads; where it is no power of two, the slopes of the next lower power come first and every
            other slope of the next higher one fills up, as in the paper's code.
    Shape:  positions (..., queries), (..., keys) -> (..., n_heads, queries, keys)
    """

    def __init__(self, *, n_heads: int) -> None:
        super().__init__()
        at_least_one(n_heads=n_heads)
        self.n_heads = n_heads
        self.slopes = Constant(slopes(n_heads))

    def bias(self, q_positions: Tensor, k_positions: Tensor) -> Tensor:
        distance = (q_positions[..., :, None] - k_positions[..., None, :]).abs()  # (..., q, k)
        return distance.unsqueeze(-3) * -self.slopes.tensor[:, None, None]


def slopes(n_heads: int) -> list[float]:
    """One slope per head, steepest first among those of one power of two."""
    lower = 1 << (n_heads.bit_length() - 1)
    first = [2.0 ** (-8 * h / lower) for h in range(1, lower + 1)]
    between = [2.0 ** (-4 * h / lower) for h in range(1, 2 * lower + 1, 2)]
    return first + between[: n_heads - lower]
