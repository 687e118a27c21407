"""Rotary position embedding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from ..contracts import Position
from ..limits import above_zero
from .constant import Constant
from .scaling import RotaryScaling


class Rotary(Position):
    """Rotates pairs of channels by angles that grow with the position, so that a score depends on the distance alone.

    (x_j, x_{j + d/2}) rotated by position * theta^(-2j / d), for q and k

    Paper: Su 2021, arXiv:2104.09864 (eq. 15). Differs: channel j is paired with j + d/2, as in GPT-NeoX and Llama.
    Cost per token: no parameters, no matrix products, no state.
    Args:   d_head: channels of one head. theta: base of the frequencies. scaling: stretches them to longer texts; None = as
            trained; its temperatures multiply the channels here, so that scores need no factor of their own.
            d_rotary: channels of each head that are rotated, the first ones, even; None = all.
    Shape:  q: (..., heads, queries, d_head), positions (..., queries) -> the same; k likewise
    Raises: ValueError: an odd number of rotated channels, or more than the head has; a theta that is not positive.
    """

    implied: ClassVar[Mapping[str, str]] = {"d_rotary": "d_head"}  # None stands for the value of the other

    def __init__(
        self,
        *,
        d_head: int,
        theta: float = 10000.0,
        scaling: RotaryScaling | None = None,
        d_rotary: int | None = None,
    ) -> None:
        super().__init__()
        above_zero(theta=theta)
        d = d_head if d_rotary is None else d_rotary
        if d % 2 or not 0 < d <= d_head:
            raise ValueError(
                f"rotary channels come in pairs: {d} of d_head {d_head} cannot be rotated, an even number up to d_head can"
            )
        frequencies = [theta ** (-j / d) for j in range(0, d, 2)]
        if scaling is not None:
            frequencies = scaling(frequencies)
        self.temperature = 1.0 if scaling is None else scaling.temperature
        self.unrotated_temperature = 1.0 if scaling is None else scaling.unrotated_temperature
        # cos is even and sin is odd: negating the first half gives each channel the sign its partner needs.
        self.frequencies = Constant([-f for f in frequencies] + frequencies)

    def rotate(self, q: Tensor, k: Tensor, q_positions: Tensor, k_positions: Tensor) -> tuple[Tensor, Tensor]:
        of_q = self._cos_sin(q_positions)
        of_k = of_q if k_positions is q_positions else self._cos_sin(k_positions)
        return self._rotated(q, *of_q), self._rotated(k, *of_k)

    def _rotated(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        d = cos.shape[-1]
        if d == x.shape[-1]:
            return rotated(x, cos, sin)
        rest = x[..., d:] if self.unrotated_temperature == 1.0 else x[..., d:] * self.unrotated_temperature
        return torch.cat((rotated(x[..., :d], cos, sin), rest), dim=-1)

    def _cos_sin(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        angles = positions[..., None, :, None] * self.frequencies.tensor  # (..., 1, s, d)
        if self.temperature == 1.0:
            return angles.cos(), angles.sin()
        return angles.cos() * self.temperature, angles.sin() * self.temperature


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x with its channels rotated; in fp32, given back in the dtype of x."""
    return (x * cos + x.roll(x.shape[-1] // 2, dims=-1) * sin).to(x.dtype)
