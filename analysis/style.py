"""The style of figures: colours for the colour-blind, a mark for each arm, labels that do not overlap."""

from __future__ import annotations

import contextlib
import io
import math
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import Formatter, MaxNLocator, NullFormatter
from matplotlib.transforms import Bbox

from analysis import digits
from analysis.comparison import Comparison
from analysis.spreadsheet import csv

# Okabe and Ito's colours, by value since old matplotlibs lack the name; their yellow is left out: too faint for a line on white
BLACK, BLUE, VERMILLION, GREEN = "#000000", "#0072B2", "#D55E00", "#009E73"
COLOURS = (BLUE, VERMILLION, GREEN, "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("s", "^", "D", "v", "P", "X", "<", ">", "p", "h", "*")
LINES = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (5, 1, 1, 1)))
INK, GREY, PALE = "#1b1f24", "#6b7280", "#d3d7dd"
HEAT = "cividis"
WIDTH = 11.0  # inches: the page's text width, so that 9 points stay 9 points
MOST_ROWS = 60  # arms that one figure lists
STYLED = 16  # arms that get a colour of their own; of more, only a few are picked out

RC = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib: the same page on every machine
    "font.size": 9,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#eceef1",
    "grid.linewidth": 0.8,
    "text.color": INK,
    "text.parse_math": False,  # a name with two dollar signs is a name
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "svg.hashsalt": "analysis",  # the same numbers give the same file
    "savefig.dpi": 160,
}


class Mark(NamedTuple):
    """How one arm is drawn in every figure."""

    colour: str
    marker: str
    line: str | tuple[float, tuple[float, ...]]
    named: bool  # labelled; the others stay in the background


@dataclass(frozen=True)
class Drawing:
    """A figure with the numbers in it. data holds exactly what is drawn; alt is the text for screen readers."""

    name: str
    title: str
    caption: str
    alt: str
    data: pd.DataFrame
    figure: Figure

    def files(self) -> dict[str, bytes]:
        """file name -> content: the picture twice and its numbers."""
        with _drawing():
            return {
                f"{self.name}.svg": _saved(self.figure, "svg", {"Date": None, "Creator": None}),
                f"{self.name}.png": _saved(self.figure, "png", {"Software": None}),
                f"{self.name}.csv": csv(self.data),
            }


@contextlib.contextmanager
def _drawing() -> Iterator[None]:
    """In this style; a letter that the font lacks is drawn as a box, and that is no reason for a warning."""
    with mpl.rc_context(RC), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def styled(draw: Callable[..., Drawing | None]) -> Callable[..., Drawing | None]:
    """Draws in this style and leaves the process's own settings alone."""

    def wrapper(*args: object) -> Drawing | None:
        with _drawing():
            return draw(*args)

    return wrapper


class Prefixed(Formatter):
    """Ticks as 800k and 1.2M, with enough digits that neighbours differ."""

    def __init__(self, unit: str = "") -> None:
        self.unit, self.step = unit, 0.0

    def set_locs(self, locs: Any) -> None:
        self.step = float(np.diff(np.sort(locs)).min()) if len(locs) > 1 else 0.0

    def __call__(self, x: float, pos: int | None = None) -> str:
        return digits.tick(x, self.step, self.unit)


def marks(study: Comparison) -> dict[str, Mark]:
    """The baseline in black, up to fifteen others by colour, marker and line; of more, the best six and the rest in grey."""
    others = [str(arm) for arm in study.arms.index if arm != study.baseline]
    few = len(others) < STYLED
    found = {study.baseline: Mark(BLACK, "o", "-", True)}
    for i, arm in enumerate(others):
        if few or i < len(COLOURS):
            line = LINES[i // len(COLOURS)]
            found[arm] = Mark(COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)], line, True)
        else:
            found[arm] = Mark(PALE, ".", "-", False)
    return found


def dark(colour: str) -> tuple[float, ...]:
    """The colour of a name beside a mark: darker, so that small letters stay readable."""
    return tuple(0.7 * part for part in to_rgb(colour))


def short(name: str, most: int = 40) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"


def fence(values: pd.Series[float]) -> tuple[float, float]:
    """The range of the values without outliers (ten times the interquartile range beyond the quartiles)."""
    low, high = values.quantile(0.25), values.quantile(0.75)
    room = 10 * (high - low) or math.inf
    inside = values[values.between(low - room, high + room)]
    return float(inside.min()), float(inside.max())


def layer_names(layers: Iterable[str]) -> dict[str, str]:
    """layers.3.ffn -> layer 3, where that stays unambiguous; in the order of the numbers."""
    layers = sorted(set(layers), key=lambda name: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)])
    numbers = [re.findall(r"\d+", name)[:1] for name in layers]
    plain = all(numbers) and len({number[0] for number in numbers}) == len(layers)
    return {name: f"layer {number[0]}" if plain else name for name, number in zip(layers, numbers, strict=True)}


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


def quantity_axis(ax: Axes, label: str, values: pd.Series, margin: float = 0.03) -> None:
    values = values[values > 0]
    ax.set_xlabel(label)
    if len(values) and values.max() / values.min() >= 30:
        ax.set_xscale("log")
        ax.xaxis.set_minor_formatter(NullFormatter())
    else:
        ax.xaxis.set_major_locator(MaxNLocator(5))
    ax.xaxis.set_major_formatter(Prefixed())
    ax.margins(x=margin)


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


def _saved(figure: Figure, kind: str, metadata: dict[str, str | None]) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format=kind, metadata=metadata)
    return file.getvalue()
