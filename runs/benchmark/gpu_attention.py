"""Patterns that see less than everything, on a GPU in bf16, as texts grow: against its fused full attention."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch

from arch import BlockSparse, SlidingWindow

from .attention import case
from .case import Case

SEQS = (4096, 8192, 16_384, 32_768, 65_536)
TINY = (64, 128)


def cases(device: torch.device) -> Iterator[Case]:
    large = device.type == "cuda"
    seqs = dict.fromkeys(SEQS if large else TINY, -math.inf)  # the ratios are for the record
    window, block, d_model = (512, 64, 512) if large else (16, 8, 16)
    sizes: dict[str, Any] = {"d_model": d_model, "device": device, "bf16": True}
    yield case(f"sliding window of {window}", lambda seq: SlidingWindow(window=window), seqs, power=1.08, **sizes)
    sparse = BlockSparse(block=block, n_global=block, window_blocks=3, n_random=2)
    yield case("block-sparse", lambda seq: sparse, seqs, power=1.2, **sizes)
