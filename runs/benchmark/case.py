"""What is compared: contenders for one piece of work, and how their times or their memory must stand to each other."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

Turn = Callable[[], Sequence[Tensor]]  # does the work once; what it returns shows that it did


@dataclass(frozen=True)
class Measured:
    """seconds: of every turn. bytes: the most that one turn held above what was there before it, where that was asked for."""

    seconds: Mapping[str, Sequence[float]]
    bytes: Mapping[str, int]


@dataclass(frozen=True)
class Bar:
    """What must hold. values: one a turn; their median counts, and the interval around it decides."""

    what: str
    values: Callable[[Measured], Sequence[float]]
    at_most: float = math.inf
    at_least: float = -math.inf


@dataclass(frozen=True)
class Case:
    """A piece of work.

    Args:   contenders: by name. twins: of a contender, the plain one whose numbers it must give; one that is not named here
            computes a function of its own. tolerance: of the relative distance between them. weighed: whether memory counts
            too; it needs tensors so large that their memory goes back to the system at once.
    """

    name: str
    contenders: Mapping[str, Turn]
    bars: Sequence[Bar]
    twins: Mapping[str, str] = field(default_factory=dict)
    tolerance: float = 1e-3
    weighed: bool = False


def lazily(make: Callable[[], Turn]) -> Turn:
    """A contender that is made when it is first called: what cannot be made is left out, and costs the others nothing."""
    made: list[Turn] = []

    def turn() -> Sequence[Tensor]:
        if not made:
            made.append(make())
        return made[0]()

    return turn


def times(one: str, other: str) -> Callable[[Measured], Sequence[float]]:
    """The time of one over that of the other, turn by turn."""
    return lambda m: [a / b for a, b in zip(m.seconds[one], m.seconds[other], strict=True)]


def seconds(one: str) -> Callable[[Measured], Sequence[float]]:
    return lambda m: m.seconds[one]


def memory(one: str, other: str) -> Callable[[Measured], Sequence[float]]:
    return lambda m: [m.bytes[one] / max(1, m.bytes[other])]


def used(name: str, flops: float, peak: float) -> Callable[[Measured], Sequence[float]]:
    """Which share of a device's FLOP/s a contender used that does so many in a turn."""
    return lambda m: [flops / value / peak for value in m.seconds[name]]


def exponent(names: Mapping[int, str]) -> Callable[[Measured], Sequence[float]]:
    """With which power of their length the times of these contenders grow: a line through their logarithms, turn by turn."""

    def values(m: Measured) -> Sequence[float]:
        turns = np.log([m.seconds[name] for name in names.values()])
        slopes: list[float] = np.polyfit(np.log(list(names)), turns, 1)[0].tolist()
        return slopes

    return values
