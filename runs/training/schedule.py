"""Learning rates over a run: functions of (step, steps) that return the factor on the peak rate, in (0, 1].

A run of n steps uses steps 0..n-1; warmup and decay are shares of n, so that a longer run keeps the same shape.
"""

from __future__ import annotations

import math
from typing import Protocol


class Schedule(Protocol):
    """What training needs of a schedule. A config names a function that declares to return one."""

    def __call__(self, step: int, steps: int) -> float: ...


def _share(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{name}={value} is a share: between 0 and 1")


def _warm(step: int, steps: int, warmup: float) -> float:
    n = warmup * steps
    return min(1.0, (step + 1) / n) if n else 1.0


def cosine(*, warmup: float = 0.1, floor: float = 0.1) -> Schedule:
    """Linear warm-up, then half a cosine down to floor. Paper: Loshchilov 2017, arXiv:1608.03983."""
    _share("warmup", warmup)
    _share("floor", floor)

    def factor(step: int, steps: int) -> float:
        start = warmup * steps
        progress = min(1.0, max(0.0, (step + 1 - start) / max(1.0, steps - start)))
        return min(_warm(step, steps, warmup), floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress)))

    return factor


def wsd(*, warmup: float = 0.1, decay: float = 0.2) -> Schedule:
    """Warm-up, stable, decay in a straight line towards zero. Paper: Hu 2024 (MiniCPM), arXiv:2404.06395."""
    _share("warmup", warmup)
    _share("decay", decay)

    def factor(step: int, steps: int) -> float:
        left = (steps - step) / (decay * steps + 1) if decay else 1.0
        return min(_warm(step, steps, warmup), left, 1.0)

    return factor


def inverse_sqrt(*, warmup: float = 0.1) -> Schedule:
    """Noam: linear warm-up to 1, then sqrt(warm-up steps / step). Paper: Vaswani 2017, arXiv:1706.03762 (eq. 3)."""
    _share("warmup", warmup)

    def factor(step: int, steps: int) -> float:
        n = max(1.0, warmup * steps)
        return min((step + 1) / n, math.sqrt(n / (step + 1)))

    return factor


def constant(*, warmup: float = 0.0) -> Schedule:
    """The peak rate throughout, after an optional linear warm-up."""
    _share("warmup", warmup)

    def factor(step: int, steps: int) -> float:
        return _warm(step, steps, warmup)

    return factor
