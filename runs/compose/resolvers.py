"""Arithmetic in conf/: what `${name:...}` may call."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from omegaconf import OmegaConf

from ..build.sizes import LARGEST


def quotient(a: int, b: int) -> int:
    refuse_no_size(a, b)
    if a % b:
        raise ValueError(f"{b} does not divide {a}; {divisors(a, b)} would do")
    return a // b


def divisors(a: int, near: int) -> str:
    """Those of a that lie nearest to a number, below and above it."""
    every = {n for small in range(1, math.isqrt(a) + 1) if a % small == 0 for n in (small, a // small)}
    nearest = (*sorted(n for n in every if n < near)[-1:], *sorted(n for n in every if n > near)[:1])
    return " or ".join(map(str, nearest))


def refuse_no_size(*numbers: Any) -> None:
    for number in numbers:
        if not isinstance(number, int) or isinstance(number, bool) or not 1 <= number <= LARGEST:
            raise ValueError(f"{number!r} is no whole number from 1 to {LARGEST:,}")


def ratio(a: int, b: int) -> float:
    refuse_no_size(a, b)
    return a / b


def share(a: int, n: int) -> int:
    """An n-th of a whole number, rounded down to one."""
    refuse_no_size(a, n)
    return max(1, a // n)


def two_thirds(width: int) -> int:
    """The width of a gated ffn with as many parameters as an ungated one, to the nearest multiple of 8."""
    refuse_no_size(width)
    return max(8, round(2 * width / 3 / 8) * 8)


def rotary_scaling(position: Any) -> Any:
    """How a relative position stretches its frequencies, for mixers that rotate channels of their own."""
    if position is not None and position.get("_target_") != "arch.Rotary":
        raise ValueError(
            f"it rotates channels of its own, so {position.get('_target_')} has no effect on it; take a rotary position"
        )
    return None if position is None else position.get("scaling")


RESOLVERS: dict[str, Callable[..., Any]] = {
    "quotient": quotient,
    "ratio": ratio,
    "share": share,
    "sqrt": math.sqrt,
    "plus": lambda a, b: a + b,
    "times": lambda a, b: a * b,
    "rotary_scaling": rotary_scaling,
    "two_thirds": two_thirds,
}
for name, function in RESOLVERS.items():
    OmegaConf.register_new_resolver(name, function, replace=True)
