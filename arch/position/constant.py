"""Numbers given by a formula."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn


class Constant(nn.Module):
    """A vector that is no weight: it moves with the module from device to device, but is never cast, saved or left empty.

    Frequencies in bf16 would give distant tokens the wrong position, and `to_empty` after a build on the meta device
    would leave a plain buffer uninitialised.

    Args:   values: the numbers. dtype: never changed.
    """

    tensor: Tensor

    def __init__(self, values: Sequence[float], *, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.values = tuple(values)
        self.register_buffer("tensor", torch.tensor(self.values, dtype=dtype), persistent=False)

    def _apply(self, fn: Callable[[Any], Any], recurse: bool = True) -> Constant:
        dtype = self.tensor.dtype
        super()._apply(fn, recurse)
        self.tensor = torch.tensor(self.values, dtype=dtype, device=self.tensor.device)
        return self
