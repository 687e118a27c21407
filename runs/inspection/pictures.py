"""Drawings in characters: boxes on a line that runs upwards, paths that branch and merge, frames around them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Picture(NamedTuple):
    """Lines of equal length, top first. axis: the column in which the line comes in at the bottom and goes out at the top."""

    lines: list[str]
    axis: int

    @property
    def width(self) -> int:
        return len(self.lines[0])

    @property
    def foot(self) -> str:
        """The character below it: an arrow, or a plain line where paths branch."""
        return "|" if self.lines[-1][self.axis] == "+" else "^"


def caption(text: str) -> Picture:
    return Picture([text], (len(text) - 1) // 2)


def box(texts: Sequence[str]) -> Picture:
    width = max(map(len, texts))
    edge = f"+-{'-' * width}-+"
    return Picture([edge, *(f"| {text.center(width)} |" for text in texts), edge], (width + 3) // 2)


def widened(picture: Picture, left: int, right: int) -> Picture:
    """With at least that much room on both sides of the axis."""
    before, after = max(0, left - picture.axis), max(0, right - (picture.width - picture.axis - 1))
    return Picture([" " * before + line + " " * after for line in picture.lines], picture.axis + before)


def aligned(pictures: Sequence[Picture]) -> list[Picture]:
    """All with the same room on both sides of the axis."""
    left, right = max(p.axis for p in pictures), max(p.width - p.axis - 1 for p in pictures)
    return [widened(picture, left, right) for picture in pictures]


def stacked(pictures: Sequence[Picture]) -> Picture:
    """One on the other, the first at the bottom."""
    same = aligned(pictures)
    width, axis = same[0].width, same[0].axis
    lines = list(same[0].lines)
    for picture in same[1:]:
        lines = [*picture.lines, _marks(width, {axis: picture.foot}), *lines]
    return Picture(lines, axis)


def merged(symbol: str, paths: Sequence[Picture], *, residual: bool) -> Picture:
    """Paths side by side between the points where they branch and merge; the residual one has nothing on it."""
    height = max(len(path.lines) for path in paths)
    lines = [""] * (height + 2)
    axes: list[int] = []
    for path in paths:
        gap = " " * 3 if axes else ""
        axes.append(len(lines[0]) + len(gap) + path.axis)
        above = "^" if len(paths) == 1 else "|"  # one path runs straight up into the merging point
        stems = [_marks(path.width, {path.axis: above})] * (height - len(path.lines) + 1)
        column = [*stems, *path.lines, _marks(path.width, {path.axis: path.foot})]
        lines = [line + gap + part for line, part in zip(lines, column, strict=True)]
    axis = (axes[0] + axes[-1]) // 2
    if residual:
        axes.append(max(len(lines[0]) + 2, axis + len(symbol) + 6))
        lines = [f"{line:{axes[-1]}}|" for line in lines]
    lines = [f"{line:{axis + len(symbol) + 3}}" for line in lines]
    crossing = f"({symbol})"
    before = axis - (len(crossing) - 1) // 2
    top = list(_marks(len(lines[0]), dict.fromkeys(axes, "+"), min(*axes, axis), max(*axes, axis)))
    top[before : before + len(crossing)] = crossing
    if axes[0] < before - 1:
        top[before - 1] = ">"
    if axes[-1] > axis:
        top[before + len(crossing)] = "<"
    bottom = _marks(len(lines[0]), dict.fromkeys([*axes, axis], "+"), min(*axes, axis), max(*axes, axis))
    return Picture(["".join(top), *lines, bottom], axis)


def framed(picture: Picture, title: str) -> Picture:
    """In a frame with a title at its top left."""
    width = max(picture.width, len(title) + 4)
    picture = widened(picture, 0, width - picture.axis - 1)
    inner = [_marks(width, {picture.axis: "|"}), *picture.lines, _marks(width, {picture.axis: picture.foot})]
    top = f"+-- {title} {'-' * (width - len(title) - 2)}+"
    return Picture([top, *(f"| {line} |" for line in inner), f"+{'-' * (width + 2)}+"], picture.axis + 2)


def beside(left: Picture, right: Picture, gap: int = 4) -> list[str]:
    """Side by side, standing on one line."""
    height = max(len(left.lines), len(right.lines))
    first, second = ([" " * p.width] * (height - len(p.lines)) + p.lines for p in (left, right))
    return [f"{a}{' ' * gap}{b}".rstrip() for a, b in zip(first, second, strict=True)]


def _marks(width: int, marks: dict[int, str], start: int = 0, end: int = -1) -> str:
    """Blanks, a rule from start to end, and single characters at their columns."""
    line = [" "] * width
    line[start : end + 1] = "-" * (end + 1 - start)
    for column, mark in marks.items():
        line[column] = mark
    return "".join(line)
