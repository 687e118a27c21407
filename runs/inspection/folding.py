"""Repetitions in a row of layers: four mamba, one attention, four mamba, one attention = 2 x (4 x mamba, attention)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple


class Repeat(NamedTuple):
    """``times`` copies, one after the other, of the item at ``first``, or of the parts that begin there."""

    first: int
    times: int
    parts: tuple[Repeat, ...] = ()

    @property
    def items(self) -> int:
        """In one copy."""
        return sum(part.times * part.items for part in self.parts) if self.parts else 1

    @property
    def label(self) -> str:
        """The numbers of the items in all copies."""
        last = self.first + self.times * self.items - 1
        return f"{self.first}" if last == self.first else f"{self.first}-{last}"


def fold(items: Sequence[Any]) -> list[Repeat]:
    """The items, first to last, with every repeated run written once: always the one that covers most items comes first."""
    return _fold(items, 0, len(items))


def _fold(items: Sequence[Any], start: int, end: int) -> list[Repeat]:
    found = []
    while start < end:
        # of equally long runs the shortest period: 8 layers that are all equal are 8 x 1, not 4 x 2
        period = max(range(1, end - start), key=lambda p: (_covered(items, start, end, p), -p), default=1)
        covered = _covered(items, start, end, period)
        period, covered = (1, 1) if covered == 0 else (period, covered)
        parts = tuple(_fold(items, start, start + period)) if period > 1 else ()
        found.append(Repeat(start, covered // period, parts))
        start += covered
    return found


def _covered(items: Sequence[Any], start: int, end: int, period: int) -> int:
    """How many items from start on are copies of the first ``period``, these included; 0 where there is no second copy."""
    copies = 1
    while start + (copies + 1) * period <= end and all(
        items[start + i] == items[start + copies * period + i] for i in range(period)
    ):
        copies += 1
    return copies * period if copies > 1 else 0
