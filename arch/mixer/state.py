"""What recurrent mixers share: a state of fixed size, its cache and precision, and where documents cut it."""

from __future__ import annotations

import contextlib
import math
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from ..contracts import Cache, SequenceMixer


class StateCache(Cache):
    """What goes on from token to token, the same size at every length.

    state: (b, ...), fp32 at least: it adds up small numbers over thousands of tokens. window: (b, channels, taps - 1), the last
    inputs of the short convolution; empty where there is none.
    """

    def __init__(self, *, state: Tensor, window: Tensor) -> None:
        self.state = state
        self.window = window

    @property
    def nbytes(self) -> int:
        return self.state.nbytes + self.window.nbytes


class StateMixer(SequenceMixer):
    """A mixer that carries a state of fixed size from token to token; a subclass brings the arithmetic, ``mix``.

    Args:   state: sizes of the state of one text. window: channels and taps - 1 of the short convolution before it, if any.
    """

    o_proj: nn.Linear

    def __init__(self, *, state: tuple[int, ...], window: tuple[int, int] = (0, 0)) -> None:
        super().__init__()
        self.state_shape = state
        self.window_shape = window

    def mix(self, x: Tensor, state: Tensor, window: Tensor, positions: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """x: (b, s, m), what the cache held before -> y (b, s, m) and what it holds after the last token."""
        raise NotImplementedError

    def forward(self, x: Tensor, *, positions: Tensor | None = None, cache: Cache | None = None) -> Tensor:
        assert cache is None or isinstance(cache, StateCache)
        before = self._empty(x.shape[0]) if cache is None else cache
        y, state, window = self.mix(x, before.state, before.window, positions)
        if cache is not None:
            cache.state, cache.window = state.clone(), window.clone()  # views would keep the whole text alive
        return y

    def init_cache(self, batch: int, max_seq: int) -> Cache:
        return self._empty(batch)

    def _empty(self, batch: int) -> StateCache:
        weight = self.o_proj.weight
        dtype = torch.promote_types(weight.dtype, torch.float32)
        return StateCache(
            state=weight.new_zeros(batch, *self.state_shape, dtype=dtype), window=weight.new_zeros(batch, *self.window_shape)
        )

    def state_bytes(self) -> int:
        """Of one text, at any length."""
        return self._empty(1).nbytes


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
