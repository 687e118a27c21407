"""What recurrent mixers share: the state that they carry, its precision, and where documents cut it."""

from __future__ import annotations

import contextlib
import math
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from ..contracts import Cache


class StateCache(Cache):
    """What goes on from token to token, the same size at every length.

    state: (b, ...), fp32 at least. window: (b, channels, taps - 1), the last inputs of the short convolution, if there is one.
    """

    def __init__(self, *, state: Tensor, window: Tensor | None = None) -> None:
        self.state = state
        self.window = window

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for part in (self.state, self.window) if part is not None)


def zero_state(like: Tensor, *shape: int) -> Tensor:
    """Zeros in fp32 at least, on the device of a parameter: a state adds up small numbers over thousands of tokens."""
    return like.new_zeros(shape, dtype=torch.promote_types(like.dtype, torch.float32))


def without_autocast(x: Tensor) -> AbstractContextManager[object]:
    """Products keep the dtype of their inputs, which are in the state's."""
    return contextlib.nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False)


def forget_at_starts(decay: Tensor, positions: Tensor | None) -> Tensor:
    """(b, s, ...) logarithms of decays: minus infinity where a document starts."""
    if positions is None:
        return decay
    return decay.masked_fill((positions == 0)[(..., *(None,) * (decay.dim() - 2))], -math.inf)


def draw_step_bias(bias: Tensor, low: float, high: float) -> None:
    """In place: softplus(bias) is log-uniform between the two, in tokens."""
    step = torch.empty_like(bias).uniform_(math.log(low), math.log(high)).exp().clamp(min=1e-4)
    bias.copy_(step + (-torch.expm1(-step)).log())
