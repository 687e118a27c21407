"""Names in figures: beside points and at the ends of lines, where they do not overlap."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.patheffects import withStroke
from matplotlib.transforms import Bbox

from analysis.style import BLACK, WIDTH, Mark, dark, short


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> np.ndarray:
    """The nearest heights to the wanted ones that keep the order, stay ``gap`` apart and, if there is room, in low..high."""
    order = np.argsort(wanted, kind="stable")
    clusters: list[tuple[float, int]] = []  # (sum of wanted - rank * gap, size): overlapping ones merge around their mean
    for height in np.clip(np.asarray(wanted, dtype=float)[order], low, high):
        total, size = float(height), 1
        while clusters and clusters[-1][0] / clusters[-1][1] + clusters[-1][1] * gap > total / size:
            below, n = clusters.pop()
            total, size = total - size * n * gap + below, size + n
        clusters.append((total, size))
    placed = np.array([total / size + rank * gap for total, size in clusters for rank in range(size)])
    ranks = np.arange(len(placed))
    result = np.empty(len(placed))
    result[order] = np.minimum(np.maximum(placed, low + ranks * gap), high - ranks[::-1] * gap)
    return result


def label_room(labels: list[str]) -> float:
    return 0.02 + 0.0072 * max(len(label) for label in labels) if labels else 0.1


def label_ends(ax: Axes, ends: dict[str, float], found: dict[str, Mark], names: dict[str, str], size: float = 8.5) -> None:
    """Names right of the axes at the heights where the lines end, pushed apart, each with a sample of its line."""
    arms = [arm for arm in ends if found[arm].named]
    low, high = ax.get_ylim()
    width, height = ax.get_position().size * ax.figure.get_size_inches()  # type: ignore[union-attr]
    room = int((1 - ax.get_position().x1) * WIDTH / 0.076) - 6  # letters
    per_point = (high - low) / (height * 72)
    heights = spread([ends[arm] for arm in arms], 1.25 * size * per_point, low, high)
    for arm, y in zip(arms, heights, strict=True):
        mark = found[arm]
        sample: dict[str, Any] = {"transform": ax.get_yaxis_transform(), "clip_on": False, "color": mark.colour}
        ax.plot([1.02, 1.02 + 0.3 / width], [y, y], ls=mark.line, lw=1.6, **sample)
        ax.plot([1.02 + 0.15 / width], [y], mark.marker, ms=4.5, **sample)
        weight = "bold" if mark.colour == BLACK else "normal"
        ax.text(
            1.02 + 0.38 / width,
            y,
            short(names[arm], room),
            transform=ax.get_yaxis_transform(),
            va="center",
            fontsize=size,
            fontweight=weight,
        )


def label_points(
    ax: Axes,
    points: dict[str, tuple[float, float, float]],
    named: Sequence[str],
    colours: dict[str, str],
    names: dict[str, str],
) -> None:
    """Names beside points (x, y, half length of the bar through it): each takes the free position nearest to its point."""
    renderer = FigureCanvasAgg(ax.figure).get_renderer()  # type: ignore[arg-type]
    ax.get_xlim(), ax.get_ylim()  # limits that are not yet computed would move the points
    frame = ax.get_window_extent(renderer)
    taken = []
    for x, y, bar in points.values():
        (left, bottom), (right, top) = ax.transData.transform([(x, y - bar), (x, y + bar)])
        taken.append(
            Bbox.from_extents(left - 4, min(bottom, (bottom + top) / 2 - 4), right + 4, max(top, (bottom + top) / 2 + 4))
        )
    steps = [
        (dx * r, dy * r)
        for r in (9, 16, 26, 38, 52)
        for dx, dy in ((1, 0), (1, 0.7), (1, -0.7), (-1, 0), (-1, 0.7), (-1, -0.7), (0, 1), (0, -1))
    ]
    for name in named:
        text = ax.annotate(
            short(names[name], 30), points[name][:2], (0, 0), textcoords="offset points", fontsize=8, color=dark(colours[name])
        )
        text.set_path_effects([withStroke(linewidth=2.5, foreground="white")])
        best = None
        text.set(ha="center", va="center")
        centred = text.get_window_extent(renderer)  # once, since it is slow; moved, it is the same box
        half, pixels = centred.width / 2, renderer.points_to_pixels(1.0)
        for dx, dy in steps:
            aside = half if dx > 0 else -half if dx < 0 else 0.0
            box = centred.translated(dx * pixels + aside, dy * pixels)
            outside = box.x0 < frame.x0 or box.x1 > frame.x1 or box.y0 < frame.y0 or box.y1 > frame.y1
            cost = sum(_overlap(box, other) for other in taken) + (1e4 if outside else 0) + 0.3 * (abs(dx) + abs(dy))
            if best is None or cost < best[0]:
                best = (cost, dx, dy, box)
        assert best is not None
        _, dx, dy, box = best
        text.set(position=(dx, dy), ha="left" if dx > 0 else "right" if dx < 0 else "center")
        taken.append(box)
        if abs(dx) + abs(dy) > 15.5:
            link = {"arrowstyle": "-", "color": colours[name], "lw": 0.5, "alpha": 0.6, "shrinkB": 3}
            ax.annotate("", points[name][:2], (dx, dy), textcoords="offset points", arrowprops=link)


def _overlap(one: Bbox, other: Bbox) -> float:
    width = min(one.x1, other.x1) - max(one.x0, other.x0)
    height = min(one.y1, other.y1) - max(one.y0, other.y0)
    return width * height if width > 0 and height > 0 else 0.0
