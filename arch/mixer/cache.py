"""What attention remembers between the steps of decoding."""

from __future__ import annotations

import torch
from torch import Tensor

from ..contracts import Cache


class KVCache(Cache):
    """The keys and values of the last tokens, and their positions once a caller has given any.

    Args:   k, v: empty buffers, (batch, kv heads, capacity, d_head); where capacity < max_seq the oldest tokens make room.
            max_seq: tokens in all.
    Raises: ValueError: more tokens than max_seq.
    """

    def __init__(self, *, k: Tensor, v: Tensor, max_seq: int) -> None:
        self.k = k
        self.v = v
        self.positions: Tensor | None = None  # (b, capacity, 1); None: 0, 1, 2 ... in every row
        self.length = 0  # tokens seen so far
        self.max_seq = max_seq

    def append(self, k: Tensor, v: Tensor, positions: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Writes n more tokens and returns what those may attend to: k, v (b, g, keys, d) and positions (b or 1, keys)."""
        n, capacity = k.shape[2], self.k.shape[2]
        end = self.length + n
        if end > self.max_seq:
            raise ValueError(f"{end} tokens do not fit into a cache for {self.max_seq}: max_seq has to be at least {end}")
        held = min(self.length, capacity)
        if self.positions is None and positions is not None:
            so_far = torch.arange(self.length - held, self.length - held + capacity, device=k.device)
            self.positions = so_far[:, None].repeat(k.shape[0], 1, 1)
        k, v = _push(self.k, k, held), _push(self.v, v, held)
        if self.positions is None:
            k_positions = torch.arange(end - k.shape[2], end, device=k.device)[None]
        else:
            new = torch.arange(self.length, end, device=k.device)[None] if positions is None else positions
            k_positions = _push(self.positions, new.expand(k.shape[0], -1)[..., None], held)[..., 0]
        self.length = end
        return k, v, k_positions


def _push(buffer: Tensor, new: Tensor, held: int) -> Tensor:
    """Writes new rows (..., n, d) behind the held ones; where they do not fit, the oldest leave after this last look."""
    capacity, end = buffer.shape[-2], held + new.shape[-2]
    if end <= capacity:
        buffer[..., held:end, :] = new
        return buffer[..., :end, :]
    rows = torch.cat((buffer[..., max(0, held + 1 - capacity) : held, :], new.to(buffer.dtype)), dim=-2)
    buffer.copy_(rows[..., -capacity:, :])
    return rows
