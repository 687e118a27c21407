"""How fast a trained model writes."""

from __future__ import annotations

import statistics
import time
from itertools import pairwise

from torch import Tensor

from arch import Decoder
from arch.decode import generate


def decode_ms(model: Decoder, context: Tensor, n_tokens: int) -> float:
    """The median milliseconds of a step that writes one token in every row, from a cache that holds the context before it.

    Args:   context: (b, s) tokens. n_tokens: steps, the likeliest token each.
    """
    ticks: list[float] = []

    def tick(row: int, token: int) -> None:  # the token is on the host: the device has done its step
        if row == 0:
            ticks.append(time.perf_counter())

    generate(model, context.tolist(), max_tokens=n_tokens + 1, temperature=0, on_token=tick)  # the first is the context's own
    return 1000 * statistics.median(after - before for before, after in pairwise(ticks))
